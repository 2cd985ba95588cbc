//! The registry that all nodes share.

use super::*;

#[test]
fn registry_in_etcd_has_members_prefix_and_copy() {
    let parsed = |text: &str| parse(text, Path::new("c.toml")).expect(text).registry_url;
    let url = parsed(
        "[registry]\nurl = \"etcd+https://a.example:2379,[fd00::1]/clouds/one/\"\nuser = \"u\"\npassword_file = \"/p\"\ncompare_interval = \"5s\"",
    );
    let shared = url.shared().expect("shared");
    assert_eq!(shared.endpoints, ["https://a.example:2379", "https://[fd00::1]:2379"]);
    assert_eq!((&*shared.prefix, shared.interval), ("clouds/one", Duration::from_secs(5)));
    assert_eq!(url.file(), Path::new("/var/lib/targetwatch/registry.db"));
    assert_eq!(url.to_string(), "etcd+https://a.example:2379,[fd00::1]:2379/clouds/one");
    let plain = parsed("[registry]\nurl = \"etcd://127.0.0.1\"\nuser = \"u\"\npassword_file = \"/p\"\ncache = \"/c\"");
    assert_eq!((plain.to_string().as_str(), plain.file()), ("etcd://127.0.0.1:2379/targetwatch", Path::new("/c")));
    for (text, part) in [
        ("url = \"etcd://\"", "is not a member of etcd"),
        ("url = \"etcd://u:p@host\"", "is not a member of etcd"),
        ("url = \"etcd://host/a b\"", "is not a prefix"),
        ("url = \"mysql://host\"", "is not the URL of a registry"),
        ("url = \"etcd://host\"\nuser = \"u\"\npassword_file = \"/p\"", "without TLS"),
        ("url = \"etcd+https://host\"\nuser = \"u\"", "missing"),
        ("url = \"etcd+https://host\"\npassword_file = \"/p\"", "not used without"),
        ("cache = \"/c\"", "not used with an sqlite URL"),
    ] {
        let error = refused(&format!("[registry]\n{text}"));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn labels_of_a_node_are_checked_and_need_a_shared_registry() {
    let etcd = "[registry]\nurl = \"etcd://127.0.0.1\"\n[fleet]\nnode = \"compute-1\"\n";
    let labelled = format!("{etcd}labels = {{ rack = \"a\", \"topology/az\" = \"1\" }}");
    let url = parse(&labelled, Path::new("c.toml")).expect("valid").registry_url;
    let labels = &url.shared().expect("shared").labels;
    assert_eq!((labels.len(), labels["rack"].as_str(), labels["topology/az"].as_str()), (2, "a", "1"));
    let many: String = (0..33).map(|number| format!("l{number} = \"a\"\n")).collect();
    for (text, part) in [
        (format!("{etcd}labels = {{ rack = \"a b\" }}"), "[fleet] labels: \"a b\" is not the key or value of a label"),
        (format!("{etcd}labels = {{ \"\" = \"a\" }}"), "[fleet] labels: \"\" is not the key"),
        (format!("{etcd}[fleet.labels]\n{many}"), "[fleet] labels: 33 labels, 32 is the limit"),
        ("[fleet]\nlabels = { rack = \"a\" }".to_owned(), "[fleet] labels: not used with an sqlite URL"),
    ] {
        let error = refused(&text);
        assert!(error.contains(part), "{text}: {error}");
    }
}
