use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn entry(name: &str, role: RoleName, password: Option<&str>) -> Entry {
    Entry {
        name: name.to_owned(),
        role,
        gateway: None,
        password: password.map(|password| hash_password(password).unwrap()),
        publish: Vec::new(),
        subscribe: Vec::new(),
    }
}

fn hq() -> Rules {
    Rules { gateway: Some("hq".parse().unwrap()), ..Rules::default() }
}

fn config(path: &Path) -> BrokerConfig {
    let mut config = BrokerConfig::new("test", "127.0.0.1:0".parse().unwrap());
    config.users = vec![User::new("gateway", "machine-made", Role::Viewer)];
    config.users_file = Some(path.to_owned());
    config.gateway = Some("hq".parse().unwrap());
    config
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn login(users: &Users, name: &str, password: &str) -> Result<Identity, Refusal> {
    users.authenticate(Claim::Password { name, password }, HERE).await
}

#[tokio::test]
async fn each_kind_of_claim() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let file = UsersFile::new(&path);
    file.put(entry("door-3", RoleName::Panel, Some("a good password")), &hq()).unwrap();
    file.put(entry("by-card", RoleName::Viewer, None), &Rules::default()).unwrap();
    let mut config = config(&path);
    config.anonymous = Some("by-card".to_owned());
    let users = Users::new(&config).unwrap();
    let panel = Identity { user: "door-3".into(), role: Role::Panel("hq".parse().unwrap()) };
    // Twice: checked, and remembered.
    for _ in 0..2 {
        assert_eq!(login(&users, "door-3", "a good password").await.as_ref(), Ok(&panel));
        assert_eq!(login(&users, "door-3", "a bad password").await, Err(Refusal::BadCredentials));
    }
    assert!(login(&users, "gateway", "machine-made").await.is_ok());
    for (name, password) in [("gateway", "wrong"), ("by-card", ""), ("nobody", "x")] {
        assert_eq!(login(&users, name, password).await, Err(Refusal::BadCredentials), "{name}");
    }
    let certificate = async |name, login| {
        users.authenticate(Claim::Certificate { name, login }, HERE).await.map(|who| who.user)
    };
    assert_eq!(certificate("by-card", None).await, Ok("by-card".to_owned()));
    assert_eq!(certificate("door-3", Some("door-3")).await, Ok("door-3".to_owned()));
    assert!(certificate("door-3", Some("by-card")).await.is_err());
    assert!(certificate("nobody", None).await.is_err());
    let nobody = users.authenticate(Claim::Nobody, HERE).await.unwrap();
    assert_eq!(nobody.user, "by-card");
}

#[tokio::test]
async fn guessing_is_slowed_by_address_but_not_those_who_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    UsersFile::new(&path)
        .put(entry("known", RoleName::Viewer, Some("right password")), &Rules::default())
        .unwrap();
    let users = Users::new(&config(&path)).unwrap();
    login(&users, "known", "right password").await.unwrap();
    let mut refused = Vec::new();
    for _ in 0..30 {
        refused.push(login(&users, "known", "guess").await.unwrap_err());
    }
    assert!(refused.contains(&Refusal::TooManyFailures), "{refused:?}");
    login(&users, "known", "right password").await.unwrap();
    login(&users, "gateway", "machine-made").await.unwrap();
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    let claim = Claim::Password { name: "known", password: "guess" };
    assert_eq!(users.authenticate(claim, elsewhere).await, Err(Refusal::BadCredentials));
}

#[tokio::test]
async fn a_change_takes_effect_and_names_whose_connections_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let file = UsersFile::new(&path);
    for name in ["stays", "goes", "changes"] {
        file.put(entry(name, RoleName::Viewer, Some("the password")), &Rules::default()).unwrap();
    }
    let users = Users::new(&config(&path)).unwrap();
    assert_eq!(users.reload().unwrap(), Vec::<String>::new());
    login(&users, "changes", "the password").await.unwrap();
    assert!(file.remove("goes").unwrap() && !file.remove("goes").unwrap());
    assert!(
        file.put(entry("changes", RoleName::Viewer, Some("another one")), &Rules::default())
            .unwrap()
    );
    let mut changed = users.reload().unwrap();
    changed.sort();
    assert_eq!(changed, ["changes", "goes"]);
    assert!(login(&users, "changes", "the password").await.is_err(), "also a remembered one");
    login(&users, "changes", "another one").await.unwrap();
    login(&users, "stays", "the password").await.unwrap();
    // A mistake is said once; everybody stays.
    write(&path, "[[users]]\nname = \"half\"");
    assert!(users.reload().is_err());
    assert_eq!(users.reload().unwrap(), Vec::<String>::new());
    login(&users, "stays", "the password").await.unwrap();
}

#[test]
fn mistakes_in_the_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let error = |text: &str, carries_link: bool| {
        write(&path, text);
        let mut config = config(&path);
        config.carries_link = carries_link;
        Users::new(&config).unwrap_err().to_string()
    };
    let user = |rest: &str| format!("[[users]]\nname = \"x\"\n{rest}");
    for (text, says) in [
        (user("role = \"king\""), "unknown variant `king`"),
        (user("role = \"viewer\"\ncolour = 1"), "line 4: unknown field `colour`"),
        (user("role = \"viewer\"\npassword = \"plain\""), "no hash"),
        (user("role = \"viewer\"\npublish = [\"a\"]"), "for role = \"custom\""),
        (user("role = \"viewer\"\ngateway = \"a\""), "for role = \"panel\""),
        (user("role = \"custom\"\npublish = [\"a#\"]"), "\"a#\" is no filter"),
        (user("role = \"viewer\"\n[[users]]\nname = \"x\"\nrole = \"viewer\""), "twice"),
        (user("role = \"viewer\"").replace("\"x\"", "\"a/b\""), "1 to 64"),
        (user("role = \"viewer\"").replace("\"x\"", "\"gateway\""), "taken by the service"),
    ] {
        let error = error(&text, false);
        assert!(error.contains(says) && error.contains("users.toml"), "{says}: {error}");
    }
    for filter in ["#", "+/a", "ridgeway-link/v1/#"] {
        let text = user(&format!("role = \"custom\"\nsubscribe = [\"{filter}\"]"));
        assert!(error(&text, true).contains("link"), "{filter}");
    }
    write(&path, &user("role = \"custom\"\nsubscribe = [\"#\"]"));
    Users::new(&config(&path)).unwrap();
    let mut elsewhere = config(&path);
    elsewhere.gateway = None;
    write(&path, &user("role = \"panel\""));
    assert!(Users::new(&elsewhere).unwrap_err().to_string().contains("needs gateway"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(Users::new(&config(&path)).unwrap_err().to_string().contains("chmod 600"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    write(&path, "[[users]]\nname = \"x\"\npasswort = \"hunter2hunter2\"");
    let error = Users::new(&config(&path)).unwrap_err().to_string();
    assert!(error.contains("passwort") && !error.contains("hunter2"), "{error}");
    let mut owner = config(&dir.path().join("none.toml"));
    owner.users = vec![User::new("gateway", "x", Role::EdgeGateway("hq".parse().unwrap()))];
    owner.anonymous = Some("gateway".to_owned());
    assert!(Users::new(&owner).is_err(), "nobody is the gateway by saying nothing");
    let mut nameless = config(&dir.path().join("none.toml"));
    nameless.anonymous = Some("nobody".to_owned());
    assert!(Users::new(&nameless).unwrap_err().to_string().contains("nobody"));
}

#[test]
fn two_writers_lose_nothing_and_the_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let file = UsersFile::new(&path);
            scope.spawn(move || {
                for at in 0..10 {
                    file.put(
                        entry(&format!("u-{writer}-{at}"), RoleName::Viewer, None),
                        &Rules::default(),
                    )
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(UsersFile::new(&path).entries().unwrap().len(), 40);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_the_broker_would_refuse_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = UsersFile::new(dir.path().join("deep/users.toml"));
    let bridge = Rules { carries_link: true, taken: vec!["bridge".to_owned()], ..Rules::default() };
    let wide = Entry { subscribe: vec!["#".to_owned()], ..entry("x", RoleName::Custom, None) };
    for entry in [
        entry("bridge", RoleName::Viewer, None),
        entry("no-gateway", RoleName::Panel, None),
        wide.clone(),
    ] {
        assert!(file.put(entry.clone(), &bridge).is_err(), "{entry:?}");
    }
    assert!(!file.put(wide, &hq()).unwrap());
    assert_eq!(file.entries().unwrap().len(), 1);
}
