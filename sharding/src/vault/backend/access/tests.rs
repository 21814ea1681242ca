use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn url(text: &str) -> BackendUrl {
    text.parse().unwrap()
}

fn from_file(path: &Path) -> Access {
    Access { credentials: Some(CredentialSource::File(path.to_owned())), ..Access::default() }
}

fn from_environment(pairs: &[(&str, &str)]) -> Access {
    let pairs = pairs.iter().map(|(name, variable)| ((*name).to_owned(), (*variable).to_owned()));
    Access { credentials: Some(CredentialSource::Environment(pairs.collect())), ..Access::default() }
}

/// The variables of a process.
fn environment(variable: &str) -> Option<String> {
    match variable {
        "ID" => Some("key-id".to_owned()),
        "SECRET" => Some("hush".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn private(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

#[test]
fn options_go_with_the_kind_of_backend() {
    let endpoint = || Some("https://s3.example.org".parse().unwrap());
    let region = || Some("ap-northeast-1".to_owned());
    let credentials = || Some(CredentialSource::File("x".into()));
    let account = || Some("genomes".to_owned());
    let none = Access::default;
    for (at, access, wrong) in [
        ("/srv", none(), None),
        ("/srv", Access { region: region(), ..none() }, Some("`region` means nothing for a file://")),
        ("/srv", Access { credentials: credentials(), ..none() }, Some("`credentials` means nothing")),
        ("/srv", Access { ca: Some("x".into()), ..none() }, Some("`ca` means nothing")),
        ("s3://genomes", Access { region: region(), credentials: credentials(), ..none() }, None),
        ("s3://genomes", Access { endpoint: endpoint(), credentials: credentials(), ..none() }, None),
        ("s3://genomes", Access { credentials: credentials(), ..none() }, Some("needs `region`")),
        ("s3://genomes", Access { region: region(), ..none() }, Some("needs `credentials`")),
        ("s3://genomes", Access { account: account(), ..none() }, Some("`account` means nothing")),
        ("gs://genomes", Access { credentials: credentials(), ..none() }, None),
        ("gs://genomes", Access { region: region(), ..none() }, Some("`region` means nothing for a gs://")),
        ("az://genomes", Access { account: account(), credentials: credentials(), ..none() }, None),
        ("az://genomes", Access { credentials: credentials(), ..none() }, Some("needs `account`")),
        ("https://dav.example.org", none(), None),
        (
            "https://dav.example.org",
            Access { endpoint: endpoint(), ..none() },
            Some("`endpoint` means nothing"),
        ),
        (
            "az://genomes",
            Access { account: Some("a/b".to_owned()), credentials: credentials(), ..none() },
            Some("`account` has 1 to 64"),
        ),
    ] {
        let said = access.check(&url(at)).map_err(|error| error.to_string());
        match wrong {
            None => assert_eq!(said, Ok(()), "{at} {access:?}"),
            Some(words) => assert!(said.clone().unwrap_err().contains(words), "{at}: {said:?}"),
        }
    }
}

#[test]
fn a_file_of_ones_own_is_read_and_any_other_is_not() {
    let file = private("# ours\n\naccess_key_id = key-id\nsecret_access_key= a=b \n");
    let bucket = url("s3://genomes");
    let Some(Key::S3 { id, secret, token: None }) = from_file(file.path()).key(&bucket, |_| None).unwrap()
    else {
        panic!("another key")
    };
    assert_eq!((id.reveal(), secret.reveal()), ("key-id", "a=b"));

    for mode in [0o640, 0o604, 0o660, 0o601] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = from_file(file.path()).key(&bucket, |_| None).unwrap_err();
        assert!(matches!(error, AccessError::Exposed { .. }), "{mode:o} {error:?}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(from_file(folder.path()).key(&bucket, |_| None), Err(AccessError::Exposed { .. })));
    assert!(matches!(from_file(Path::new("/nowhere")).key(&bucket, |_| None), Err(AccessError::File { .. })));
    // A pipe that nobody writes to keeps nobody waiting.
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(from_file(&pipe).key(&bucket, |_| None), Err(AccessError::Exposed { .. })));
}

#[test]
fn a_file_with_anything_else_in_it_is_refused_and_not_repeated() {
    let lines = "access_key_id = a\nsecret_access_key = hush\n";
    for (content, line) in [
        (format!("{lines}colour = red"), 3),
        (format!("{lines}access_key_id = again"), 3),
        ("[default]\n".to_owned(), 1),
        ("access_key_id =\n".to_owned(), 1),
        ("\nhush".to_owned(), 2),
    ] {
        let error = from_file(private(&content).path()).key(&url("s3://genomes"), |_| None).unwrap_err();
        let AccessError::Line { line: said, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*said, line);
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
    let long = format!("{lines}#{}", "x".repeat(1 << 16));
    let error = from_file(private(&long).path()).key(&url("s3://genomes"), |_| None).unwrap_err();
    assert!(matches!(error, AccessError::Length), "{error:?}");
    let half = private("access_key_id = a\n");
    let error = from_file(half.path()).key(&url("s3://genomes"), |_| None).unwrap_err();
    assert!(error.to_string().contains("access_key_id and secret_access_key"), "{error}");
}

#[test]
fn every_kind_takes_its_own_credentials() {
    let key = |at: &str, content: &str| from_file(private(content).path()).key(&url(at), |_| None);
    assert!(matches!(key("gs://genomes", "{\"a\": 1}").unwrap(), Some(Key::Google { .. })));
    assert!(matches!(
        key("az://genomes", "account_key = a").unwrap(),
        Some(Key::Azure(AzureKey::Account(_)))
    ));
    assert!(matches!(key("az://genomes", "sas = a").unwrap(), Some(Key::Azure(AzureKey::Signature(_)))));
    let both = key("az://genomes", "sas = a\naccount_key = b").unwrap_err();
    assert!(matches!(both, AccessError::Several { .. }));
    let dav = "https://dav.example.org";
    assert!(matches!(key(dav, "").unwrap(), Some(Key::Web(WebKey::None))));
    assert!(matches!(key(dav, "bearer_token = a").unwrap(), Some(Key::Web(WebKey::Bearer(_)))));
    assert!(matches!(key(dav, "username = a\npassword = b").unwrap(), Some(Key::Web(WebKey::Basic { .. }))));
    assert!(matches!(key(dav, "username = a").unwrap_err(), AccessError::Missing { .. }));
    assert!(matches!(key(dav, "username = a\nbearer_token = b").unwrap_err(), AccessError::Several { .. }));
    assert!(Access::default().key(&url("/srv"), |_| None).unwrap().is_none());
}

#[test]
fn the_environment_gives_what_configuration_names() {
    let bucket = url("s3://genomes");
    let access = from_environment(&[("access_key_id", "ID"), ("secret_access_key", "SECRET")]);
    let key = access.key(&bucket, environment).unwrap();
    assert!(matches!(&key, Some(Key::S3 { secret, .. }) if secret.reveal() == "hush"));
    assert!(!format!("{key:?}").contains("hush"));
    for unset in ["NOWHERE", "EMPTY"] {
        let access = from_environment(&[("access_key_id", unset)]);
        let error = access.key(&bucket, environment).unwrap_err();
        assert!(error.to_string().contains(unset), "{error}");
    }
    let error = from_environment(&[("sas", "ID")]).key(&bucket, environment).unwrap_err();
    assert!(error.to_string().contains("`sas` is no credential of a s3://"), "{error}");
}

proptest! {
    /// Any file is credentials or an error that repeats none of its values.
    #[test]
    fn no_file_surprises(content in "((access_key_id|secret_access_key|session_token|x| |#)=?(hush)?[ -~]{0,9}\n?){0,6}") {
        let bucket = url("s3://genomes");
        let given = parse(&bucket, names(&bucket).unwrap(), &content);
        let said = format!("{given:?}");
        prop_assert!(!said.contains("hush"));
    }
}
