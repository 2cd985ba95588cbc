//! The memory of large answers, which is bounded however slowly clients read.
//!
//! A list is rendered anew after each probe, so clients that do not read would keep one list after the other in memory.
//! An answer therefore shares its [`Pieces`] with all answers that have the same ones, and can lose them. When the
//! bytes of all answers together exceed [`ANSWERS_MAX_BYTES`], the answers that began first end early. Their clients
//! get a closed connection instead of the rest. No client waits for another one.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};

use super::fault::Fault;
use super::pieces::{PIECE_BYTES, Pieces};

/// Memory of all large answers together, in bytes. The list of 10,000 targets with their reports has about 24 MB.
pub const ANSWERS_MAX_BYTES: usize = 256 << 20;

/// Largest size of an answer that is not counted, in bytes. The number of connections bounds their memory.
const SMALL_MAX_BYTES: usize = PIECE_BYTES;

static ANSWERS: AnswerMemory = AnswerMemory::new(ANSWERS_MAX_BYTES);

/// Marks a response whose body is counted.
#[derive(Clone)]
struct Counted;

impl IntoResponse for Pieces {
    /// Returns a response whose body is counted until it is sent.
    fn into_response(self) -> Response {
        match self.pieces() {
            [] => ().into_response(),
            [only] if only.len() <= SMALL_MAX_BYTES => Body::from(only.clone()).into_response(),
            _ => (Extension(Counted), ANSWERS.body(self)).into_response(),
        }
    }
}

/// Counts the body of an answer until it is sent.
pub(super) async fn bounded(response: Response) -> Response {
    let (head, body) = response.into_parts();
    if head.extensions.get::<Counted>().is_some() || body.size_hint().lower() <= SMALL_MAX_BYTES as u64 {
        return Response::from_parts(head, body);
    }
    // Boxed, because few answers are large and not in pieces yet.
    match Box::pin(body.collect()).await {
        Ok(body) => Response::from_parts(head, ANSWERS.body(Pieces::copy_of(&body.to_bytes()))),
        Err(error) => {
            let message = format!("the answer cannot be made: {error}");
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

/// All large answers that are being sent, those that began last at the end.
struct AnswerMemory {
    max_bytes: usize,
    answers: Mutex<VecDeque<Weak<Answer>>>,
}

/// The pieces of one or more equal answers, while there is memory for them.
struct Answer(Mutex<Option<Pieces>>);

impl AnswerMemory {
    const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, answers: Mutex::new(VecDeque::new()) }
    }

    fn body(&self, pieces: Pieces) -> Body {
        let unsent_bytes = pieces.len();
        Body::new(Frames { answer: Some(self.admit(pieces)), next: 0, unsent_bytes })
    }

    /// Adds an answer, and ends the oldest ones if all together have too many bytes.
    fn admit(&self, pieces: Pieces) -> Arc<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current: Vec<_> = answers.iter().filter_map(Weak::upgrade).collect();
        let is_same =
            |answer: &Arc<Answer>| answer.pieces().as_ref().is_some_and(|held| Pieces::are_same(held, &pieces));
        let answer = match current.iter().position(is_same) {
            Some(at) => current.remove(at),
            None => Arc::new(Answer(Mutex::new(Some(pieces)))),
        };
        current.push(answer.clone());
        let mut total: usize = current.iter().map(|answer| answer.len()).sum();
        for older in &current[..current.len() - 1] {
            if total <= self.max_bytes {
                break;
            }
            total -= older.end();
        }
        *answers = current.iter().map(Arc::downgrade).collect();
        answer
    }
}

impl Answer {
    fn pieces(&self) -> std::sync::MutexGuard<'_, Option<Pieces>> {
        // Every change is a single assignment, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of bytes in memory.
    fn len(&self) -> usize {
        self.pieces().as_ref().map_or(0, Pieces::len)
    }

    /// Frees the bytes, and returns their number.
    fn end(&self) -> usize {
        self.pieces().take().map_or(0, |pieces| pieces.len())
    }
}

/// The body of one answer. A frame is a piece.
struct Frames {
    /// `None` after the last frame.
    answer: Option<Arc<Answer>>,
    /// Index of the next piece.
    next: usize,
    unsent_bytes: usize,
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(answer) = &self.answer else { return Poll::Ready(None) };
        let piece = answer.pieces().as_ref().and_then(|pieces| pieces.pieces().get(self.next).cloned());
        let Some(piece) = piece else {
            self.answer = None;
            let ended = Error::new(ErrorKind::OutOfMemory, "newer answers needed the memory of this one");
            return Poll::Ready(Some(Err(ended)));
        };
        self.next += 1;
        self.unsent_bytes -= piece.len();
        if self.unsent_bytes == 0 {
            self.answer = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent_bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 3 * PIECE_BYTES + 1;

    fn answer(memory: &AnswerMemory, fill: u8) -> Body {
        memory.body(Pieces::copy_of(&[fill; LENGTH]))
    }

    #[tokio::test]
    async fn answer_arrives_complete() {
        let memory = AnswerMemory::new(LENGTH);
        let bytes: Vec<u8> = (0..LENGTH).map(|number| number as u8).collect();
        let body = memory.body(Pieces::copy_of(&bytes));
        assert_eq!(body.size_hint().exact(), Some(LENGTH as u64));
        assert_eq!(body.collect().await.expect("complete").to_bytes(), bytes);
    }

    #[tokio::test]
    async fn oldest_answers_end_when_newer_ones_need_the_memory() {
        let memory = AnswerMemory::new(2 * LENGTH);
        let mut oldest = answer(&memory, 1);
        oldest.frame().await.expect("a frame").expect("in memory");
        let second = answer(&memory, 2);
        let third = answer(&memory, 3);
        let error = oldest.frame().await.expect("a frame").expect_err("the end");
        assert!(error.to_string().contains("newer answers"), "{error}");
        assert!(oldest.frame().await.is_none());
        for (body, fill) in [(second, 2), (third, 3)] {
            assert_eq!(body.collect().await.expect("complete").to_bytes(), vec![fill; LENGTH]);
        }
    }

    #[tokio::test]
    async fn equal_answers_share_their_memory_and_count_once() {
        let memory = AnswerMemory::new(2 * LENGTH);
        let list = Pieces::copy_of(&[1; LENGTH]);
        let answers: Vec<_> = (0..100).map(|_| memory.body(list.clone())).collect();
        let other = answer(&memory, 2);
        for body in answers.into_iter().chain([other]) {
            assert_eq!(body.collect().await.expect("complete").to_bytes().len(), LENGTH);
        }
    }

    #[tokio::test]
    async fn bytes_are_freed_with_the_last_answer_that_has_them() {
        let memory = AnswerMemory::new(LENGTH);
        let (bytes, freed) = tracked();
        let (first, second) = (memory.body(bytes.clone()), memory.body(bytes));
        drop(first);
        assert!(!freed(), "another answer has them");
        second.collect().await.expect("complete");
        assert!(freed());
        let (bytes, freed) = tracked();
        let unread = memory.body(bytes);
        let newer = answer(&memory, 1);
        assert!(freed(), "while the client does not read");
        drop((unread, newer));
    }

    /// Pieces, and whether they are freed.
    fn tracked() -> (Pieces, impl Fn() -> bool) {
        let owner = Arc::new(vec![0_u8; LENGTH]);
        let weak = Arc::downgrade(&owner);
        struct Owner(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        (Pieces::from_iter([Bytes::from_owner(Owner(owner))]), move || weak.upgrade().is_none())
    }

    #[tokio::test]
    async fn pieces_of_any_sizes_arrive_complete() {
        for lengths in
            [&[][..], &[0], &[1, 1], &[0, 3], &[SMALL_MAX_BYTES - 1, 1], &[SMALL_MAX_BYTES, 1], &[PIECE_BYTES + 1]]
        {
            let pieces: Pieces = lengths.iter().map(|&length| Bytes::from(vec![7; length])).collect();
            let expected = pieces.pieces().concat();
            let body = bounded(pieces.into_response()).await.into_body();
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64), "{lengths:?}");
            assert!(body.collect().await.expect("complete").to_bytes() == expected, "{lengths:?}");
        }
    }

    #[tokio::test]
    async fn large_body_of_a_response_is_counted_and_a_small_one_passed_on() {
        for length in [0, 1, SMALL_MAX_BYTES, SMALL_MAX_BYTES + 1] {
            let bytes = vec![7_u8; length];
            for response in [Pieces::copy_of(&bytes).into_response(), bytes.into_response()] {
                let response = bounded(response).await;
                assert_eq!(response.body().size_hint().exact(), Some(length as u64));
                let mut body = response.into_body();
                let first =
                    body.frame().await.map_or(0, |frame| frame.expect("a frame").into_data().expect("data").len());
                assert_eq!(first, length.min(PIECE_BYTES));
            }
        }
    }
}
