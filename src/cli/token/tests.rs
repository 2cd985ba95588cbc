//! Logins from variables and from `clouds.yaml`.

use secrecy::ExposeSecret;

use super::*;
use crate::keystone::fake::{FakeKeystone, PASSWORD};
use crate::keystone::{Domain, Identifier, Login, LoginScope, Method};

fn variables<'a>(given: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    move |name| given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
}

fn login(given: &[(&str, &str)]) -> (String, Login) {
    match Values::of_environment(&variables(given)).source().expect("complete") {
        Source::Login { url, login, .. } => (url, login),
        Source::Token(_) => panic!("a token for {given:?}"),
    }
}

fn by_name(name: &str, domain: Domain) -> Identifier {
    Identifier::Name(name.to_owned(), domain)
}

#[test]
fn openrc_variables_make_a_login() {
    let common = [("OS_AUTH_URL", "http://k:5000/v3/"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "p")];
    let with = |more: &[(&'static str, &'static str)]| login(&[&common[..], more].concat());
    let project = |domain| LoginScope::Project(by_name("p", domain));
    for (more, user_domain, scope) in [
        (&[][..], Domain::Id("default".into()), LoginScope::Default),
        (&[("OS_PROJECT_NAME", "p")], Domain::Id("default".into()), project(Domain::Id("default".into()))),
        (&[("OS_TENANT_NAME", "p")], Domain::Id("default".into()), project(Domain::Id("default".into()))),
        (
            &[("OS_PROJECT_NAME", "p"), ("OS_USER_DOMAIN_NAME", "D"), ("OS_PROJECT_DOMAIN_ID", "e")],
            Domain::Name("D".into()),
            project(Domain::Id("e".into())),
        ),
        (
            &[("OS_PROJECT_NAME", "p"), ("OS_DEFAULT_DOMAIN", "d"), ("OS_PROJECT_DOMAIN_NAME", "E")],
            Domain::Id("d".into()),
            project(Domain::Name("E".into())),
        ),
        (&[("OS_PROJECT_ID", "7f")], Domain::Id("default".into()), LoginScope::Project(Identifier::Id("7f".into()))),
        (&[("OS_SYSTEM_SCOPE", "all")], Domain::Id("default".into()), LoginScope::System),
        (&[("OS_DOMAIN_NAME", "D")], Domain::Id("default".into()), LoginScope::Domain(Domain::Name("D".into()))),
    ] {
        let (url, login) = with(more);
        assert_eq!((url.as_str(), &login.scope), ("http://k:5000", &scope), "{more:?}");
        let Method::Password { user, password } = login.method else { panic!("{more:?}") };
        assert_eq!((user, password.expose_secret()), (by_name("u", user_domain), "p"), "{more:?}");
    }
}

#[test]
fn application_credential_has_no_scope() {
    let common = [("OS_AUTH_URL", "http://k"), ("OS_APPLICATION_CREDENTIAL_SECRET", "s"), ("OS_PROJECT_NAME", "p")];
    let with = |more: &[(&'static str, &'static str)]| login(&[&common[..], more].concat()).1;
    let by_id = with(&[("OS_APPLICATION_CREDENTIAL_ID", "21")]);
    assert_eq!(by_id.scope, LoginScope::Default);
    assert!(matches!(by_id.method, Method::ApplicationCredential { id: Ok(id), .. } if id == "21"));
    let by_name = with(&[("OS_APPLICATION_CREDENTIAL_NAME", "a"), ("OS_USER_ID", "u")]);
    let Method::ApplicationCredential { id: Err((name, user)), .. } = by_name.method else { panic!("{by_name:?}") };
    assert_eq!((name.as_str(), user), ("a", Identifier::Id("u".into())));
}

#[test]
fn error_names_missing_value_and_hides_secrets() {
    for (given, expected) in [
        (&[("OS_AUTH_URL", "http://k"), ("OS_PASSWORD", "s3cret")][..], "username is missing"),
        (&[("OS_AUTH_URL", "http://k"), ("OS_USERNAME", "u")], "password is missing"),
        (&[("OS_AUTH_URL", "http://k"), ("OS_APPLICATION_CREDENTIAL_ID", "a")], "application_credential_secret"),
        (&[("OS_AUTH_URL", "http://k/v2.0"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "s3cret")], "v2.0"),
        (&[("OS_AUTH_URL", "k:5000"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "s3cret")], "k:5000"),
        (&[("OS_AUTH_URL", "https://k"), ("OS_INSECURE", "1")], "cacert"),
    ] {
        let error = Values::of_environment(&variables(given)).source().expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("OS_") && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn first_token_source_wins_and_only_a_login_contacts_keystone() {
    let keystone = FakeKeystone::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "from file\n").expect("written");
    let url = keystone.settings().url;
    let openrc = [("OS_AUTH_URL", url.as_str()), ("OS_USERNAME", "u"), ("OS_PASSWORD", PASSWORD)];
    let with_token = [&openrc[..], &[("OS_TOKEN", "from variable")]].concat();
    let got = async |file, given: &[(&str, &str)]| {
        let token = token(file, variables(given)).await.expect("a token");
        token.map(|token| token.expose_secret().to_owned())
    };
    assert_eq!(got(Some(&file), &with_token).await.as_deref(), Some("from file"));
    assert_eq!(got(None, &with_token).await.as_deref(), Some("from variable"));
    assert_eq!(got(None, &[("OS_TOKEN", "")]).await, None);
    assert_eq!(keystone.asked(), (0, 0));
    assert_eq!(got(None, &openrc).await.as_deref(), Some("own-1"));

    let wrong = [("OS_AUTH_URL", url.as_str()), ("OS_USERNAME", "u"), ("OS_PASSWORD", "s3cret")];
    let error = token(None, variables(&wrong)).await.expect_err("refused").to_string();
    assert!(error.contains("does not accept the login") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn cloud_is_found_by_name_with_its_secure_values() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("clouds.yaml");
    let yaml = "
clouds:
  one:
    region_name: RegionOne
    auth: &auth
      auth_url: https://k.example/identity/v3
      username: u
      project_name: 12345
      user_domain_name: Default
      project_domain_name: Default
    cacert: /etc/ssl/k.pem
    interface: public
  insecure:
    verify: false
    auth: *auth
";
    std::fs::write(&file, yaml).expect("written");
    std::fs::write(directory.path().join("secure.yaml"), "clouds: {one: {auth: {password: p}}}\n").expect("written");
    let path = file.display().to_string();
    let given = [("OS_CLIENT_CONFIG_FILE", path.as_str())];
    let values = clouds::values("one", &variables(&given)).await.expect("a cloud");
    let Source::Login { url, ca_bundle, login } = values.source().expect("complete") else { panic!("a token") };
    assert_eq!((url.as_str(), ca_bundle), ("https://k.example/identity", Some("/etc/ssl/k.pem".into())));
    assert_eq!(login.scope, LoginScope::Project(by_name("12345", Domain::Name("Default".into()))));

    let refused = clouds::values("insecure", &variables(&given)).await.expect("a cloud").source();
    assert!(refused.expect_err("not verified").to_string().contains("cacert"));
    let Err(error) = clouds::values("three", &variables(&given)).await else { panic!("found") };
    assert!(error.to_string().contains("one") && error.to_string().contains("three"), "{error}");
    std::fs::write(&file, "clouds: {one: {auth: [s3cret]}}").expect("written");
    let Err(error) = clouds::values("one", &variables(&given)).await else { panic!("understood") };
    assert!(error.to_string().contains("line 1") && !error.to_string().contains("s3cret"), "{error}");
}
