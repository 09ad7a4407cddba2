use super::*;

async fn open_at(address: &str, options: &SourceOptions) -> Result<LocalFile, SourceError> {
    open(
        address,
        options,
        None,
        options.storage.data_dir(),
        &CancellationToken::new(),
    )
    .await
}

/// A file that this workspace uploaded.
async fn upload(root: &Path, workspace_id: Uuid) -> String {
    let mut incoming = Uploads::new(&Storage::local(root))
        .begin(workspace_id, "list.csv")
        .await
        .unwrap();
    incoming.write(b"x").await.unwrap();
    incoming.finish().await.unwrap().url()
}

#[tokio::test]
async fn paths_do_not_lead_out_of_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["open", "secret"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let ours = upload(root, Uuid::nil()).await;
    let theirs = upload(root, Uuid::max()).await;
    std::fs::write(root.join("open/list.csv"), "x").unwrap();
    std::fs::write(root.join("secret/list.csv"), "x").unwrap();
    std::os::unix::fs::symlink(root.join("secret/list.csv"), root.join("open/out.csv")).unwrap();
    std::os::unix::fs::symlink(root.join("open/list.csv"), root.join("open/in.csv")).unwrap();
    let mut options = SourceOptions::new(root);
    let file = |name: &str| format!("file://{}/{name}", root.display());
    assert!(
        open_at(&file("open/list.csv"), &options).await.is_err(),
        "no directory is open"
    );
    options.allowed_dir = Some(root.join("open"));
    for (address, allowed) in [
        (ours.clone(), true),
        (theirs, false),
        (format!("{ours}.json"), false),
        ("upload://../secret/list.csv".to_owned(), false),
        ("upload://..".to_owned(), false),
        ("upload://".to_owned(), false),
        (format!("upload://{}", Uuid::max()), false),
        (file("open/list.csv"), true),
        (file("open/in.csv"), true),
        (file("open/out.csv"), false),
        (file("secret/list.csv"), false),
        (file("open/../secret/list.csv"), false),
        (file("open/%2e%2e/secret/list.csv"), false),
        (file("open"), false),
        ("ftp://example.com/x".to_owned(), false),
        ("/etc/passwd".to_owned(), false),
    ] {
        let found = open_at(&address, &options).await;
        match found {
            Ok(_) => assert!(allowed, "{address}"),
            Err(SourceError::Refused(_)) => assert!(!allowed, "{address}"),
            Err(other) => panic!("{address}: {other}"),
        }
    }
    options.max_bytes = 0;
    assert!(open_at(&ours, &options).await.is_err(), "too large");
}

#[tokio::test]
async fn downloads_stay_out_of_private_networks() {
    let dir = tempfile::tempdir().unwrap();
    let options = SourceOptions::new(dir.path());
    for address in [
        "http://127.0.0.1:1/x",
        "http://localhost:1/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://[::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://169.254.169.254/latest/meta-data",
    ] {
        let found = open_at(address, &options).await;
        assert!(
            matches!(found, Err(SourceError::Refused(_))),
            "{address}: {found:?}"
        );
    }
}
