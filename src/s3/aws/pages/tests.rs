//! Tests of valid and invalid pages.

use super::*;
use crate::s3::aws::fake_service::{answer, answering};
use crate::s3::{Entries, ObjectApi as _};

/// Returns a bucket of a service that answers one request with this list.
async fn giving(list: &str) -> AwsBucket {
    answering([answer("200 OK", list)]).await.0
}

#[tokio::test]
async fn empty_version_marker_is_left_out() {
    let list = "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
                <NextVersionIdMarker></NextVersionIdMarker></ListVersionsResult>";
    let page = giving(list).await.versions_page(None).await.expect("a page");
    assert_eq!(page.next, Some(PageMarker::Version { key: "k".to_owned(), version: None }));
}

/// Returns a list of two entries with this text between them.
fn two(root: &str, entry: &str, between: &str) -> String {
    let entry = |key| format!("<{entry}><Key>{key}</Key><VersionId>v</VersionId><Size>5</Size></{entry}>");
    format!("<{root}><IsTruncated>false</IsTruncated>{}{between}{}</{root}>", entry("a"), entry("b"))
}

#[tokio::test]
async fn truncated_or_damaged_list_is_refused() {
    let damaged = "the answer is not complete, well-formed XML";
    for (entries, root, entry) in
        [(Entries::Versions, "ListVersionsResult", "Version"), (Entries::Objects, "ListBucketResult", "Contents")]
    {
        let is_versioned = entries == Entries::Versions;
        let whole = two(root, entry, "");
        let cut = whole.split_inclusive(&format!("</{entry}>")).next().expect("an entry").to_owned();
        let page = async |list: &str| match entries {
            Entries::Versions => giving(list).await.versions_page(None).await,
            Entries::Objects => giving(list).await.objects_page(None).await,
        };
        let found = page(&whole).await.expect("a page");
        assert_eq!((found.versions, found.bytes), (2, 10));
        assert_eq!(giving(&whole).await.list("p", is_versioned, 9).await.map(|list| list.len()), Ok(2));
        for list in [cut, two(root, entry, "<"), two(root, entry, "< /"), two(root, entry, "</x>")] {
            let failure = page(&list).await.expect_err(&list);
            assert!(matches!(&failure, S3Failure::NotS3(_)), "{failure} {list}");
            let failure = giving(&list).await.list("p", is_versioned, 9).await.expect_err(&list);
            assert!(matches!(&failure, S3Failure::NotS3(_)), "{failure} {list}");
        }
        let cut = whole.trim_end_matches(&format!("</{root}>")).to_owned();
        assert_eq!(page(&cut).await, Err(S3Failure::NotS3(damaged.to_owned())));
    }
}

#[test]
fn incomplete_page_is_refused() {
    let next = || Some(PageMarker::Token("t".to_owned()));
    assert_eq!(next_page(Some(true), next()), Ok(next()));
    assert_eq!(next_page(Some(false), next()), Ok(None));
    let long = "k".repeat(MARKER_LIMIT_BYTES + 1);
    for next in [
        PageMarker::Token(long.clone()),
        PageMarker::Version { key: long.clone(), version: None },
        PageMarker::Version { key: "k".to_owned(), version: Some(long.clone()) },
    ] {
        assert!(matches!(next_page(Some(true), Some(next)), Err(S3Failure::NotS3(_))));
    }
    assert!(ends([Some(&*long)].into_iter()).is_err());
    assert_eq!(counts(990, 10), Ok((990, 10)));
    assert!(counts(990, 11).is_err());
    for (is_truncated, next) in [(Some(true), None), (None, next()), (None, None)] {
        assert!(matches!(next_page(is_truncated, next), Err(S3Failure::NotS3(_))), "{is_truncated:?}");
    }
    assert_eq!(total([Some(3), Some(0)].into_iter()), Ok(3));
    for sizes in [vec![None], vec![Some(-1)], vec![Some(i64::MAX); 3]] {
        assert!(matches!(total(sizes.into_iter()), Err(S3Failure::NotS3(_))));
    }
    assert_eq!(ends(["b", "a", "c"].map(Some).into_iter()), Ok(Some(("a".to_owned(), "c".to_owned()))));
    assert!(ends([Some("a"), None].into_iter()).is_err());
}
