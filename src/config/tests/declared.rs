//! Targets in the file.

use super::*;

#[test]
fn declared_targets_with_one_mount_path_or_two_defaults_are_refused() {
    let target =
        |export: &str, more: &str| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"{export}\"\n{more}\n");
    let same = refused(&(target("a:/x", "") + &target("b:/x", "")));
    assert!(same.contains("a:/x") && same.contains("b:/x"), "{same}");
    let defaults = refused(&(target("a:/x", "is_default = true") + &target("a:/y", "is_default = true")));
    assert!(defaults.contains("is_default") && defaults.contains("exactly one"), "{defaults}");
}

#[test]
fn declared_export_that_only_an_older_registry_contains_is_accepted() {
    for export in ["nas:/a//b", "nas:/a/./b"] {
        let text = format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"{export}\"");
        let settings = parse(&text, Path::new("c.toml")).expect(export);
        assert_eq!(settings.declared[0].spec.export(), export);
    }
}

#[test]
fn declared_metadata_and_names_have_the_limits_of_the_api() {
    let target = |more: &str| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"a:/x\"\n{more}\n");
    let entries = (0..65).map(|number| format!("k{number} = \"v\"\n")).collect::<String>();
    let many = refused(&target(&format!("[target.metadata]\n{entries}")));
    assert!(many.contains("65 keys, 64 is the limit"), "{many}");
    let long = refused(&target(&format!("metadata = {{ a = \"{}\" }}", "x".repeat(4097))));
    assert!(long.contains("has 4097 characters, expected 1 to 4096 characters"), "{long}");
    let name = refused(&target(&format!("btt_name = \"{}\"", "x".repeat(256))));
    assert!(name.contains("has 256 characters, expected 1 to 255 characters"), "{name}");
}
