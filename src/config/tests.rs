//! Which settings are taken, refused and shown.

use super::*;

fn settle(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let read = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::settle(Given::default(), read, |_| None)
}

#[test]
fn secrets_that_protect_nothing_are_refused() {
    let stores = [("DATABASE_URL", "postgres://d"), ("REDIS_URL", "redis://r")];
    let with = |name, value| settle(&[stores[0], stores[1], (name, value)]);
    let long = "a secret of thirty-two bytes, at least";
    assert!(with("BULLWARK_JWT_SECRET", long).is_ok());
    let short = with("BULLWARK_JWT_SECRET", "short")
        .unwrap_err()
        .to_string();
    assert!(
        short.contains("32 bytes") && !short.contains("`short`"),
        "{short}"
    );
    for url in ["https://id.example/keys", "http://127.0.0.1:9/keys"] {
        assert!(with("BULLWARK_JWKS_URL", url).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/keys",
        "http://127.0.0.1.example/",
        "keys",
    ] {
        assert!(with("BULLWARK_JWKS_URL", url).is_err(), "{url}");
    }
}

#[test]
fn what_is_secret_is_not_printed() {
    let config = settle(&[
        ("DATABASE_URL", "postgres://u:hush-1@d"),
        ("REDIS_URL", "redis://u:hush-2@r"),
        ("BULLWARK_API_KEY", "hush-3"),
        (
            "BULLWARK_JWT_SECRET",
            "hush-4, with at least thirty-two bytes",
        ),
        ("BULLWARK_STORAGE_URL", "s3://bucket"),
        ("BULLWARK_STORAGE_REGION", "eu-central-1"),
        ("BULLWARK_STORAGE_KEY_ID", "id"),
        ("BULLWARK_STORAGE_SECRET", "hush-5"),
    ]);
    let printed = format!("{:?}", config.unwrap());
    assert!(!printed.contains("hush"), "{printed}");
    let given = Given {
        database_url: Some("postgres://u:hush@d".to_owned()),
        ..Given::default()
    };
    assert!(!format!("{given:?}").contains("hush"));
}

#[test]
fn a_storage_that_is_half_said_is_refused() {
    let stores = [("DATABASE_URL", "postgres://d"), ("REDIS_URL", "redis://r")];
    let bucket = ("BULLWARK_STORAGE_URL", "s3://bucket");
    let refused = settle(&[stores[0], stores[1], bucket]).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.starts_with("BULLWARK_STORAGE_REGION"), "{refused}");
    let secret = ("BULLWARK_STORAGE_SECRET", "hush");
    let refused = settle(&[stores[0], stores[1], bucket, secret]).unwrap_err();
    assert!(!refused.to_string().contains("hush"), "{refused}");
    assert!(settle(&stores).unwrap().storage.is_none());
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let stores = [("DATABASE_URL", "postgres://d"), ("REDIS_URL", "redis://r")];
    let of = |origins| {
        let config = settle(&[stores[0], stores[1], ("BULLWARK_CORS_ORIGINS", origins)]);
        config.map(|config| config.cors_origins)
    };
    let two = of(" https://a.example , http://localhost:5173,").unwrap();
    assert_eq!(two, ["https://a.example", "http://localhost:5173"]);
    assert_eq!(of("*").unwrap(), ["*"]);
    for wrong in [
        "a.example",
        "https://a.example/",
        "https://A.example",
        "null",
        "https://*",
    ] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn our_own_variables_go_before_the_common_ones() {
    let config = settle(&[
        ("DATABASE_URL", "postgres://common"),
        ("BULLWARK_DATABASE_URL", "postgres://ours"),
        ("REDIS_URL", "redis://common"),
    ])
    .unwrap();
    assert_eq!(&*config.database_url, "postgres://ours");
    assert_eq!(&*config.redis_url, "redis://common");
    assert_eq!(
        (config.prefix.as_str(), config.http_addr.port()),
        ("bull", 8080)
    );
}

#[test]
fn one_store_alone_is_not_mixed_with_a_discovered_one() {
    let read = |name: &str| (name == "DATABASE_URL").then(|| "postgres://x".to_owned());
    let found = |_: &std::path::Path| Some(("redis://y".to_owned(), "postgres://y".to_owned()));
    let error = Config::settle(Given::default(), read, found).unwrap_err();
    assert!(error.to_string().contains("BULLWARK_REDIS_URL"), "{error}");
}

#[test]
fn a_wrong_setting_is_named() {
    let stores = [("DATABASE_URL", "postgres://x"), ("REDIS_URL", "redis://x")];
    let mut wrong = stores.to_vec();
    wrong.push(("BULLWARK_HTTP_ADDR", "8080"));
    let error = settle(&wrong).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("BULLWARK_HTTP_ADDR is `8080`"),
        "{error}"
    );
}

#[test]
fn an_encryption_key_is_read_and_never_shown() {
    let stores = [("DATABASE_URL", "postgres://x"), ("REDIS_URL", "redis://x")];
    let name = "BULLWARK_ENCRYPTION_KEY";
    let with = |key: &str| settle(&[stores[0], stores[1], (name, key)]);
    assert!(settle(&stores).unwrap().encryption_keys.is_none());
    let hex = "ab".repeat(32);
    let config = with(&hex).unwrap();
    assert!(config.encryption_keys.is_some());
    assert!(!format!("{config:?}").contains("abab"), "{config:?}");
    let refused = with("hush").unwrap_err().to_string();
    assert!(refused.starts_with("BULLWARK_ENCRYPTION_KEY"), "{refused}");
    assert!(!refused.contains("hush"), "{refused}");
}
