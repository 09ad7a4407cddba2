//! What is kept of uploads, and what is not.

use super::*;

const OURS: Uuid = Uuid::from_u128(1);

fn uploads_in(dir: &Path) -> Uploads {
    Uploads::new(&Storage::local(dir))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("uploads")).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_finished_upload_is_found_by_its_workspace_alone() {
    let dir = tempfile::tempdir().unwrap();
    let uploads = uploads_in(dir.path());
    let mut incoming = uploads.begin(OURS, "a.csv").await.unwrap();
    incoming.write(b"ab").await.unwrap();
    incoming.write(b"c").await.unwrap();
    let upload = incoming.finish().await.unwrap();
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!((upload.bytes, upload.sha256.as_str()), (3, sum));

    let found = uploads.find(upload.id, OURS).await.unwrap().unwrap();
    assert_eq!(found.upload, upload);
    let path = found.bring(dir.path()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"abc");
    let theirs = uploads.find(upload.id, Uuid::from_u128(2)).await.unwrap();
    assert!(theirs.is_none());
    let unknown = uploads.find(Uuid::from_u128(3), OURS).await.unwrap();
    assert!(unknown.is_none());
}

#[tokio::test]
async fn an_unfinished_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut incoming = uploads_in(dir.path()).begin(OURS, "a").await.unwrap();
    incoming.write(b"half").await.unwrap();
    assert_eq!(names(dir.path()).len(), 1);
    drop(incoming);
    assert!(names(dir.path()).is_empty());
}

#[tokio::test]
async fn a_sweep_removes_old_remains_only() {
    let dir = tempfile::tempdir().unwrap();
    let uploads = uploads_in(dir.path());
    let upload = uploads.begin(OURS, "a").await.unwrap();
    let whole = upload.finish().await.unwrap().id;
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let path = |name: String| dir.path().join("uploads").join(name);
    for (name, is_old) in [
        ("dead.part", true),
        ("dead.json", true),
        ("dead.json.part", true),
        ("arriving.part", false),
        ("arriving.json", false),
    ] {
        let file = File::create(path(name.to_owned())).unwrap();
        if is_old {
            file.set_modified(old).unwrap();
        }
    }
    for name in [whole.to_string(), format!("{whole}.json")] {
        let file = File::options().append(true).open(path(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    assert_eq!(
        uploads.sweep(&mut Round::default()).await.unwrap().removed,
        3
    );
    assert!(uploads.find(whole, OURS).await.unwrap().is_some());
    assert_eq!(names(dir.path()).len(), 4);
}

#[test]
fn a_file_name_is_for_people_only() {
    for (given, kept) in [
        ("leads.csv", "leads.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\leads.csv", "leads.csv"),
        (".bashrc", "bashrc"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("gnp.\u{202e}csv.exe", "gnp.csv.exe"),
        ("Zoë 名簿.csv", "Zoë 名簿.csv"),
        ("..", "upload"),
        ("", "upload"),
    ] {
        assert_eq!(sanitized(given), kept, "{given:?}");
    }
    assert_eq!(sanitized(&"x".repeat(999)).len(), FILE_NAME_MAX);
}
