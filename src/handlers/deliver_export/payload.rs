//! How the file of an export or a report gets to people, as payloads say it, and what is made of
//! that: who is told.

use lettre::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::{JobError, Problem};
use crate::record::file_deliveries::{self, NewDelivery, RECIPIENTS_MAX};
use crate::worker::JobContext;

/// The longest name of a sender.
const NAME_MAX: usize = 100;

/// How the file gets to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum DeliverTo {
    /// It waits to be downloaded.
    DownloadLink,
    /// A mail with a link to it.
    Email,
    /// A call with a link to it.
    Webhook,
}

/// Whom it gets to, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = FileDelivery))]
pub struct Delivery {
    /// Addresses of mail; none: that of the user who asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[cfg_attr(feature = "server", schema(max_items = 10, example = json!(["ada@example.com"])))]
    pub to: Vec<String>,
    /// Whom the mail is from; none: the `from_address` of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 254))]
    #[cfg_attr(feature = "server", schema(min_length = 3, max_length = 254))]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[cfg_attr(feature = "server", schema(max_length = 100))]
    pub from_name: Option<String>,
    /// What sends the mail; none: the oldest connection that does. For a webhook, one of the
    /// provider `http`, whose address is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<Uuid>,
}

/// What is wrong with them.
pub(in crate::handlers) fn check(to: Option<DeliverTo>, how: Option<&Delivery>) -> Vec<Problem> {
    let problem = |pointer: &str, message: &str| Problem {
        pointer: format!("/{pointer}"),
        message: message.to_owned(),
    };
    let empty = Delivery::default();
    let given = how.unwrap_or(&empty);
    let mut wrong = Vec::new();
    match to {
        None | Some(DeliverTo::DownloadLink) => {
            if how.is_some() {
                let message = "goes with `deliver_to`: `email` or `webhook` only";
                wrong.push(problem("delivery", message));
            }
        }
        Some(DeliverTo::Webhook) => {
            if given.connection_id.is_none() {
                let message = "names a connection of the provider `http`, whose address is called";
                wrong.push(problem("delivery/connection_id", message));
            }
            if !given.to.is_empty() || given.from.is_some() || given.from_name.is_some() {
                let message = "of a webhook has a `connection_id` and nothing else";
                wrong.push(problem("delivery", message));
            }
        }
        Some(DeliverTo::Email) => {
            if given.to.len() > RECIPIENTS_MAX {
                wrong.push(problem("delivery/to", "has more than 10 addresses"));
            }
            let is_address = |text: &str| text.len() <= 254 && text.parse::<Address>().is_ok();
            for (at, address) in given.to.iter().take(RECIPIENTS_MAX).enumerate() {
                if !is_address(address) {
                    let pointer = format!("delivery/to/{at}");
                    wrong.push(problem(&pointer, "is no address of mail"));
                }
            }
            if given.from.as_deref().is_some_and(|text| !is_address(text)) {
                wrong.push(problem("delivery/from", "is no address of mail"));
            }
            let name = given.from_name.as_deref().unwrap_or_default();
            if name.chars().count() > NAME_MAX || name.contains(char::is_control) {
                let message = "has at most 100 characters, and none that controls";
                wrong.push(problem("delivery/from_name", message));
            }
        }
    }
    wrong
}

/// Who is to be told of the file of this job. Looked at before the first row is read: what can not
/// be delivered is not made.
pub(in crate::handlers) async fn recipients(
    ctx: &JobContext,
    (to, how): (Option<DeliverTo>, Option<&Delivery>),
    public_url: Option<&str>,
) -> Result<Vec<NewDelivery>, JobError> {
    let channel = match to {
        None | Some(DeliverTo::DownloadLink) => return Ok(Vec::new()),
        Some(DeliverTo::Email) => "email",
        Some(DeliverTo::Webhook) => "webhook",
    };
    if public_url.is_none() {
        return Err(JobError::permanent(
            "this installation does not know its own address, so there are no links that others \
             could follow: whoever runs it sets BULLWARK_PUBLIC_URL, and then the job is run again",
        ));
    }
    if ctx.workspace_id().is_none() {
        let why = "the job belongs to no workspace: its file is delivered to nobody";
        return Err(JobError::permanent(why));
    }
    let empty = Delivery::default();
    let given = how.unwrap_or(&empty);
    let new = |recipient: String| NewDelivery {
        channel,
        recipient,
        connection_id: given.connection_id,
        from_address: given.from.clone(),
        from_name: given.from_name.clone().unwrap_or_default(),
    };
    if let ("webhook", Some(id)) = (channel, given.connection_id) {
        return Ok(vec![new(id.to_string())]);
    }
    let mut all = given.to.clone();
    if all.is_empty() {
        let own = file_deliveries::address_of_creator(ctx.record(), ctx.job_id()).await;
        all.extend(own.map_err(JobError::retry)?);
    }
    if all.is_empty() {
        return Err(JobError::permanent(
            "nobody knows whom to mail the file to: name addresses in `delivery.to`; only what a \
             user has asked for goes to that user by itself",
        ));
    }
    // One mail to each, however it is written.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(address.to_lowercase()));
    Ok(all.into_iter().map(new).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_not_be_delivered_is_told_with_its_place() {
        for (to, how, place) in [
            ("email", json!({ "to": ["ada"] }), "/delivery/to/0"),
            (
                "email",
                json!({ "to": ["a@x.example", "b@x\r\nx"] }),
                "/delivery/to/1",
            ),
            ("email", json!({ "from": "x" }), "/delivery/from"),
            (
                "email",
                json!({ "from_name": "a\nb" }),
                "/delivery/from_name",
            ),
            (
                "email",
                json!({ "to": vec!["a@x.example"; 11] }),
                "/delivery/to",
            ),
            ("webhook", json!({}), "/delivery/connection_id"),
            (
                "webhook",
                json!({ "connection_id": Uuid::nil(), "to": ["a@x.example"] }),
                "/delivery",
            ),
            ("download_link", json!({}), "/delivery"),
        ] {
            let to: DeliverTo = serde_json::from_value(json!(to)).unwrap();
            let how: Delivery = serde_json::from_value(how).unwrap();
            let wrong = check(Some(to), Some(&how));
            assert_eq!(wrong[0].pointer, place, "{how:?}");
        }
        assert!(check(Some(DeliverTo::Email), None).is_empty());
        assert!(check(None, None).is_empty());
    }
}
