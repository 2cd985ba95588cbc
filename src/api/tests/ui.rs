//! Pages for browsers: how many are in memory.

use super::*;
use crate::api::state::PAGES_MAX;

#[tokio::test]
async fn pages_beyond_the_limit_are_refused_until_one_is_read() {
    let api = Api::start().await;
    let page = async || {
        let request = Request::builder().uri("/ui/targets/none").body(Body::empty()).expect("a request");
        api.routes.clone().oneshot(request).await.expect("infallible")
    };
    let mut unread = Vec::new();
    for _ in 0..PAGES_MAX {
        unread.push(page().await);
    }
    let refused = page().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    drop(unread.pop());
    assert_eq!(page().await.status(), StatusCode::NOT_FOUND, "a page about an unknown target");
}
