//! What problems tell, and what not.

use std::sync::Arc;

use super::*;
use crate::enqueue::EnqueueError;
use crate::job::Refused;
use crate::record::{RecordError, Trouble};

#[test]
fn what_a_store_said_stays_inside() {
    let secret = "relation \"jobs\" of host 10.0.0.7";
    for error in [
        RecordError::Unavailable(Trouble::Away, secret.to_owned()),
        RecordError::Corrupt(secret.to_owned()),
        RecordError::Schema(secret.to_owned()),
        RecordError::Refused {
            constraint: None,
            message: secret.to_owned(),
        },
    ] {
        let document = Problem::from(EnqueueError::Record(Arc::new(error))).document();
        assert!(!document.to_string().contains("10.0.0.7"), "{document}");
    }
}

#[test]
fn every_code_is_in_the_document_by_the_name_that_it_has() {
    let all = Code::all();
    assert!(all.len() >= 37 && all.contains(&Code::StorageFull));
    for code in all {
        assert_eq!(serde_json::json!(code), code.as_str());
    }
}

#[test]
fn codes_agree_with_those_of_enqueue() {
    let away = || Arc::new(RecordError::Unavailable(Trouble::Away, String::new()));
    for error in [
        EnqueueError::Refused(Refused::PayloadTooLarge { bytes: 1 }),
        EnqueueError::Refused(Refused::Invalid { problems: vec![] }),
        EnqueueError::KeyReused {
            id: uuid::Uuid::nil(),
        },
        EnqueueError::TooMany { given: 1 },
        EnqueueError::Record(away()),
        EnqueueError::Stopping,
    ] {
        let code = error.code();
        assert_eq!(Problem::from(error).code.as_str(), code);
    }
}
