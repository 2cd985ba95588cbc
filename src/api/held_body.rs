//! Bodies that count against a limit while they are in memory.
//!
//! A client that reads slowly keeps its answer in memory. So large answers hold a permit until they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// Size of a frame of an answer, in bytes.
const FRAME_BYTES: usize = 32 << 10;

/// Returns a body that holds its permit as long as its bytes are in memory.
pub(super) fn held(bytes: Bytes, permit: OwnedSemaphorePermit) -> Body {
    Body::new(Frames(Bytes::from_owner(Held { bytes, _permit: permit })))
}

struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that is sent in frames of [`FRAME_BYTES`]. The server copies a frame only after the previous one was sent. So
/// while a client does not read, the server does not buffer a second copy of the body.
struct Frames(Bytes);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.0.len().min(FRAME_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn answer_counts_until_its_last_frame_is_sent() {
        let answers = Arc::new(Semaphore::new(1));
        let permit = answers.clone().try_acquire_owned().expect("a permit");
        let mut body = held(Bytes::from(vec![b'x'; FRAME_BYTES + 1]), permit);
        let (first, last) = (body.frame().await, body.frame().await);
        let frames = [first, last].map(|frame| frame.expect("a frame").expect("infallible").into_data().expect("data"));
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!((frames[0].len(), frames[1].len(), answers.available_permits()), (FRAME_BYTES, 1, 0));
        drop(frames);
        assert_eq!(answers.available_permits(), 1);
    }
}
