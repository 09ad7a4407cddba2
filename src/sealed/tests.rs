use std::os::unix::fs::PermissionsExt;

use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// The same 32 bytes.
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn sealer(keys: &str) -> Sealer {
    Sealer::new(Some(Keys::parse(keys).unwrap()), "/nowhere")
}

fn place() -> Place {
    Place {
        kind: "webhook",
        workspace_id: Uuid::from_u128(1),
        id: Uuid::from_u128(2),
    }
}

fn hush() -> Secret {
    Secret("whsec_hush".to_owned())
}

#[test]
fn what_was_sealed_opens_in_its_place_and_in_no_other() {
    let sealer = sealer(HEX);
    let sealed = sealer.seal(&place(), &hush()).unwrap();
    assert!(!sealed.contains("hush"), "{sealed}");
    assert_eq!(sealer.open(&place(), &sealed).unwrap(), hush());
    let elsewhere = [
        Place {
            kind: "provider",
            ..place()
        },
        Place {
            workspace_id: Uuid::from_u128(3),
            ..place()
        },
        Place {
            id: Uuid::from_u128(3),
            ..place()
        },
    ];
    for place in elsewhere {
        let refused = sealer.open(&place, &sealed).unwrap_err();
        assert!(matches!(refused, SealError::Damaged), "{place:?}");
    }
    let again = sealer.seal(&place(), &hush()).unwrap();
    assert_ne!(again, sealed, "equal secrets do not look equal");
}

#[test]
fn what_was_changed_does_not_open() {
    let sealer = sealer(HEX);
    let sealed = sealer.seal(&place(), &hush()).unwrap();
    let start = sealed.rfind('.').unwrap() + 1;
    for at in start..sealed.len() {
        let mut changed = sealed.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(sealer.open(&place(), &changed).is_err(), "at {at}");
    }
    let short = sealed[..start + 8].to_owned();
    for text in [
        String::new(),
        "v1".into(),
        sealed.replacen("v1", "v2", 1),
        short,
    ] {
        let refused = sealer.open(&place(), &text).unwrap_err();
        assert!(matches!(refused, SealError::Damaged), "{text}: {refused}");
    }
}

#[test]
fn another_key_is_told_by_the_name_of_its_setting() {
    let sealed = sealer(HEX).seal(&place(), &hush()).unwrap();
    let refused = sealer(OTHER).open(&place(), &sealed).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, SealError::OtherKey { .. }), "{text}");
    assert!(text.contains("BULLWARK_ENCRYPTION_KEY"), "{text}");
    assert!(!text.contains(HEX) && !text.contains(OTHER), "{text}");
    // A new key in front, the old one still there to open.
    let rotated = sealer(&format!("{OTHER}, {HEX}"));
    assert_eq!(rotated.open(&place(), &sealed).unwrap(), hush());
    let newer = rotated.seal(&place(), &hush()).unwrap();
    assert!(sealer(HEX).open(&place(), &newer).is_err());
    assert_eq!(sealer(OTHER).open(&place(), &newer).unwrap(), hush());
}

#[test]
fn a_key_is_32_bytes_in_either_form() {
    let keys = Keys::parse(HEX).unwrap();
    assert_eq!(keys, Keys::parse(BASE64).unwrap());
    assert_eq!(keys, Keys::parse(BASE64.trim_end_matches('=')).unwrap());
    assert!(!format!("{keys:?}").contains("0102"), "{keys:?}");
    for text in ["", "hush", &HEX[2..], "AAEC", &format!("{HEX},")] {
        assert_eq!(Keys::parse(text), Err(InvalidKey::Form), "{text}");
    }
    let many = [HEX; 9].join(",");
    assert_eq!(Keys::parse(&many), Err(InvalidKey::TooMany));
}

#[test]
fn processes_of_one_directory_that_begin_together_have_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let opener = Sealer::new(None, &path);
    assert!(matches!(
        opener.open(&place(), "v1.00000000.AA"),
        Err(SealError::OtherKey { .. })
    ));
    assert!(!path.exists(), "who only opens makes no key");

    let sealed: Vec<String> = std::thread::scope(|scope| {
        let seal = || Sealer::new(None, &path).seal(&place(), &hush()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for text in &sealed {
        assert_eq!(opener.open(&place(), text).unwrap(), hush());
    }
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is left behind: {files:?}");
    let mode = std::fs::metadata(path.join(FILE)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // A setting that comes later seals, and what the file's key has sealed still opens.
    let set = Sealer::new(Some(Keys::parse(OTHER).unwrap()), &path);
    assert_eq!(set.open(&place(), &sealed[0]).unwrap(), hush());
    let newer = set.seal(&place(), &hush()).unwrap();
    assert!(opener.open(&place(), &newer).is_err());
    std::fs::write(path.join(FILE), "hush").unwrap();
    let broken = Sealer::new(None, &path).seal(&place(), &hush());
    let text = broken.unwrap_err().to_string();
    assert!(text.contains(FILE) && !text.contains("hush"), "{text}");
}
