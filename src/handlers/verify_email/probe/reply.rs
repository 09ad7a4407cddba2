//! What an answer to `RCPT TO` says of a mailbox.
//!
//! | answer | says |
//! |---|---|
//! | 250, 251 | it is taken |
//! | 5yz with 5.1.0, 5.1.1, 5.1.6, 5.1.10 | there is no such mailbox |
//! | 550, 551, 553 without an enhanced code | perhaps the same: whoever else is taken tells |
//! | 4.2.2, 5.2.2; 452, 552 without one that speak of a mailbox that is full | it is full |
//! | 5.7.x, or words of blocking, senders, relaying … | nothing: it is about who asks |
//! | 421 | nothing, and the server goes away (RFC 5321, 3.8) |
//! | all other | nothing |
//!
//! Codes: RFC 5321, 4.2.3, and RFC 3463. Servers that mean somebody else by a code that is one of
//! an unknown recipient are met: Postfix says 5.1.0 of a *sender* that it does not know, filters
//! say 550 to whoever is on their list. So words that point there make a "no" a "nothing".

/// Enhanced codes of a "no" to this very mailbox.
const NO_MAILBOX: [&str; 4] = ["5.1.0", "5.1.1", "5.1.6", "5.1.10"];
const FULL: [&str; 2] = ["4.2.2", "5.2.2"];
/// What Exchange Online says to recipients that it does not know, and to domains.
const NOT_HERE: &str = "5.4.1";
/// Parts of words that speak of whoever asks, in small letters.
const OF_THE_CALLER: [&str; 20] = [
    "access denied",
    "authent",
    "banned",
    "black",
    "block",
    "dmarc",
    "dnsbl",
    "graylist",
    "greylist",
    "helo",
    "ip address",
    "policy",
    "rbl",
    "relay",
    "reputation",
    "sender",
    "spam",
    "spf",
    "too fast",
    "too many",
];
/// What 552 says of a mailbox that is full; 452 is often about the disk of the server.
const OF_A_FULL_ONE: [&str; 4] = ["full", "quota", "storage", "exceed"];
const OF_A_FULL_ONE_SURELY: [&str; 2] = ["full", "quota"];

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Taken,
    NoMailbox,
    /// A plain no, which may be meant for everybody.
    PlainNo,
    Full,
    /// It is refused for good, and not because of us; what for is not said.
    OtherNo,
    /// Nothing: not now, not from here, or nothing that is known.
    Nothing,
    /// Nothing, and the server goes away.
    Leaves,
}

/// Reads an answer. Its words are those behind the code; the recipient is left out of them.
pub(super) fn read(code: u16, words: &str, recipient: &str) -> Says {
    match code {
        250 | 251 => return Says::Taken,
        421 => return Says::Leaves,
        400..600 => {}
        _ => return Says::Nothing,
    }
    let enhanced = enhanced(words);
    if enhanced == Some(NOT_HERE) {
        return Says::OtherNo;
    }
    let words = words.to_ascii_lowercase();
    let words = words.replace(&recipient.to_ascii_lowercase(), "");
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if enhanced.is_some_and(|code| code.starts_with("5.7.")) || has(&OF_THE_CALLER) {
        return Says::Nothing;
    }
    let is_full = match (enhanced, code) {
        (Some(enhanced), _) => FULL.contains(&enhanced),
        (None, 552) => has(&OF_A_FULL_ONE),
        (None, 452) => has(&OF_A_FULL_ONE_SURELY),
        (None, _) => false,
    };
    match (enhanced, code) {
        _ if is_full => Says::Full,
        (_, ..500) => Says::Nothing,
        (Some(enhanced), _) if NO_MAILBOX.contains(&enhanced) => Says::NoMailbox,
        (None, 550 | 551 | 553) => Says::PlainNo,
        _ => Says::OtherNo,
    }
}

/// The enhanced code: the first word, or behind the text in the form of qmail, `(#5.1.1)`.
fn enhanced(words: &str) -> Option<&str> {
    let first = words.split_whitespace().next()?;
    if is_enhanced(first) {
        return Some(first);
    }
    let (_, behind) = words.rsplit_once("(#")?;
    let (code, _) = behind.split_once(')')?;
    is_enhanced(code).then_some(code)
}

fn is_enhanced(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let is_number =
        |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && matches!(parts[0], "2" | "4" | "5") && parts[1..].iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_the_standard_and_servers_that_are_met_mean_by_it() {
        for (code, words, says) in [
            (250, "2.1.5 OK", Says::Taken),
            (251, "User not local; will forward", Says::Taken),
            (252, "2.0.0 Cannot VRFY user", Says::Nothing),
            (354, "go on", Says::Nothing),
            (
                550,
                "5.1.1 The account that you tried to reach does not exist",
                Says::NoMailbox,
            ),
            (
                550,
                "5.1.10 RESOLVER.ADR.RecipientNotFound; not found",
                Says::NoMailbox,
            ),
            (550, "5.1.0 Address rejected.", Says::NoMailbox),
            (551, "5.1.6 has moved", Says::NoMailbox),
            (554, "5.1.1 no such user", Says::NoMailbox),
            (
                550,
                "sorry, no mailbox here by that name (#5.1.1)",
                Says::NoMailbox,
            ),
            (550, "5.1.1 <spam@acme.com>: user unknown", Says::NoMailbox),
            (550, "No such user", Says::PlainNo),
            (550, "", Says::PlainNo),
            (551, "User not local", Says::PlainNo),
            (553, "sorry, no such user here", Says::PlainNo),
            (550, "user not listed in directory 1.2", Says::PlainNo),
            (450, "4.1.1 user unknown, for now", Says::Nothing),
            (450, "no such user, perhaps", Says::Nothing),
            (452, "4.2.2 over quota", Says::Full),
            (552, "5.2.2 over quota", Says::Full),
            (550, "5.2.2 mailbox full", Says::Full),
            (
                552,
                "Requested mail action aborted: exceeded storage allocation",
                Says::Full,
            ),
            (452, "mailbox full", Says::Full),
            (452, "insufficient system storage", Says::Nothing),
            (452, "4.3.1 insufficient system storage", Says::Nothing),
            (452, "4.5.3 too many recipients", Says::Nothing),
            (552, "too many recipients, quota reached", Says::Nothing),
            (
                552,
                "1 Requested mail action aborted, mailbox not found",
                Says::OtherNo,
            ),
            (450, "4.7.1 greylisted", Says::Nothing),
            (451, "try again later", Says::Nothing),
            (421, "4.7.0 goodbye", Says::Leaves),
            (550, "5.7.1 blocked using a list", Says::Nothing),
            (550, "5.1.1 message from you is spam", Says::Nothing),
            (
                550,
                "5.1.0 <probe@x.example>: Sender address rejected",
                Says::Nothing,
            ),
            (
                553,
                "sorry, that domain isn't in my list (#5.7.1)",
                Says::Nothing,
            ),
            (550, "relaying denied", Says::Nothing),
            (550, "blocked, see our page", Says::Nothing),
            (
                530,
                "5.7.0 Must issue a STARTTLS command first",
                Says::Nothing,
            ),
            (
                550,
                "5.4.1 Recipient address rejected: Access denied",
                Says::OtherNo,
            ),
            (550, "5.2.1 disabled", Says::OtherNo),
            (550, "4.1.1 what now", Says::OtherNo),
            (501, "what?", Says::OtherNo),
            (554, "no", Says::OtherNo),
        ] {
            assert_eq!(read(code, words, "Spam@acme.com"), says, "{code} {words}");
        }
    }
}
