use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn tag_error(text: &str) -> String {
    text.parse::<TagName>().unwrap_err().fault().to_string()
}

#[test]
fn tags_that_are_names() {
    for text in ["a", "0", "A-b_c", "ubuntu:22.04", "ghcr.io/o/i:t", "a/_b", "x:-y", "localhost:5000/a/b:1"] {
        assert_eq!(text.parse::<TagName>().unwrap().as_str(), text);
    }
    assert!("a".repeat(256).parse::<TagName>().is_ok());
}

#[test]
fn errors_name_the_character_and_its_position() {
    assert_eq!(tag_error(""), "is empty");
    assert!(tag_error(".a").starts_with("has '.' at position 1"));
    assert!(tag_error("_a").starts_with("has '_' at position 1"));
    assert!(tag_error("a//b").starts_with("has '/' at position 3"));
    assert!(tag_error("a@b").starts_with("has '@' at position 2"));
    assert!(tag_error("a b").starts_with("has ' ' at position 2"));
    assert!(tag_error("näme").starts_with("has 'ä' at position 2"));
    assert!(tag_error("abc:").starts_with("ends in ':' at position 4"));
    assert!(tag_error(&"a".repeat(257)).contains("257 bytes"));
    assert!(tag_error("tag:x").contains("begins with 'tag:'"));
    for uuid in ["01890a5d-ac96-774b-bcce-b302099a8057", "01890a5dac96774bbcceb302099a8057"] {
        assert!(tag_error(uuid).contains("reads as a UUID"));
    }
}

#[test]
fn errors_show_the_name_and_are_the_crates_own() {
    let tag = || -> crate::Result<TagName> { Ok("a\n".parse()?) };
    let project = || -> crate::Result<ProjectName> { Ok("a/b".parse()?) };
    let workspace = || -> crate::Result<WorkspaceName> { Ok("w.".parse()?) };
    let shown = [tag().unwrap_err(), project().unwrap_err(), workspace().unwrap_err()];
    let expected = ["tag 'a\\n': has", "project 'a/b': has", "workspace 'w.': ends in"];
    for (error, expected) in shown.iter().zip(expected) {
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let long = "é".repeat(1_000);
    for shown in [
        long.parse::<TagName>().unwrap_err().to_string(),
        long.parse::<ImageRef>().unwrap_err().to_string(),
        crate::Error::from(long.parse::<ProjectName>().unwrap_err()).to_string(),
    ] {
        assert!(shown.contains("ééé") && shown.contains('…') && shown.len() < 500, "{shown}");
    }
}

#[test]
fn project_names_have_no_separators_of_tags() {
    assert!("team-a.web".parse::<ProjectName>().is_ok());
    assert!("a/b".parse::<ProjectName>().is_err());
    assert!("a:b".parse::<ProjectName>().is_err());
}

#[test]
fn references_are_told_apart() {
    let parse = |text: &str| text.parse::<ImageRef>().unwrap();
    let digest = format!("name@sha256:{}", "0123456789abcdef".repeat(4));
    assert!(matches!(parse("01890A5D-AC96-774B-BCCE-B302099A8057"), ImageRef::Id(_)));
    assert!(matches!(parse("tag:a/b"), ImageRef::Tag(_)));
    assert!(matches!(parse("ubuntu"), ImageRef::Name(_)));
    let ImageRef::Oci(oci) = parse(&digest) else { panic!("{digest}") };
    assert_eq!((oci.name(), oci.tag()), ("name", None));
    let ImageRef::Oci(oci) = parse("docker://localhost:5000/a/b:1..2") else { panic!() };
    assert_eq!((oci.scheme(), oci.name(), oci.tag()), (Some("docker"), "localhost:5000/a/b", Some("1..2")));
    for bad in ["", "tag:", "a@sha256:00", "http://x/y", "docker://", "docker:///x", "a@", "docker://A", ".x"]
    {
        let error = bad.parse::<ImageRef>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
    }
}

#[test]
fn a_url_form_without_digest_is_looked_up_by_its_name() {
    let reference: ImageRef = "docker://ghcr.io/o/i:t".parse().unwrap();
    assert_eq!(reference.as_tag().unwrap().as_str(), "ghcr.io/o/i:t");
}

proptest! {
    #[test]
    fn a_reference_displays_as_what_it_parses_from(text in "(docker://|tag:)?[a-zA-Z0-9._:/@-]{1,40}") {
        if let Ok(reference) = text.parse::<ImageRef>() {
            prop_assert_eq!(reference.to_string().parse::<ImageRef>().unwrap(), reference);
        }
    }

    #[test]
    fn tags_follow_the_grammar(text in "[a-zA-Z0-9._:/@ -]{0,12}") {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let expected = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.split([':', '/', '.']).all(|part| !part.is_empty() && part.chars().all(word))
            && !text.starts_with("tag:");
        prop_assert_eq!(text.parse::<TagName>().is_ok(), expected);
    }
}
