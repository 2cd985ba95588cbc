//! A stream with a minimum rate for its reader.
//!
//! A timeout of each write is not a bound, because a client that reads a byte now and then would keep its connection
//! for hours. So a reader has a time credit, [`WRITE_TIMEOUT`] at first. Writes that wait for the reader
//! use up the credit. Bytes that it reads restore the credit at [`READ_RATE_MIN`], up to the initial amount.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may read nothing of its answer, and how long it may lag behind [`READ_RATE_MIN`] in total.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Lowest rate at which a client may read its answers, in bytes per second.
pub const READ_RATE_MIN: u32 = 16 << 10;

/// A stream with a minimum rate for its reader.
pub(super) struct MinRateStream<S> {
    stream: Pin<Box<S>>,
    credit: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> MinRateStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: Box::pin(stream), credit: WRITE_TIMEOUT, waiting: None }
    }

    /// Records that the reader accepted bytes.
    fn accepted(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(READ_RATE_MIN));
        self.credit = (self.credit + earned).min(WRITE_TIMEOUT);
    }

    /// Waits for the reader. Fails when the credit of the reader is used up.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let credit = self.credit;
        let (_, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(credit))));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads its answer too slowly")))
    }

    fn within_credit<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending => self.wait(context),
            Poll::Ready(Ok(accepted)) => {
                self.accepted(bytes(&accepted));
                Poll::Ready(Ok(accepted))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<S: AsyncRead> AsyncRead for MinRateStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.as_mut().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for MinRateStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = this.stream.as_mut().poll_write(context, bytes);
        this.within_credit(context, outcome, |accepted| *accepted)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = this.stream.as_mut().poll_flush(context);
        this.within_credit(context, outcome, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = this.stream.as_mut().poll_shutdown(context);
        this.within_credit(context, outcome, |()| 0)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = this.stream.as_mut().poll_write_vectored(context, parts);
        this.within_credit(context, outcome, |accepted| *accepted)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Writes while the reader reads `bytes` at each interval. Returns the time until it is dropped, at most an hour.
    async fn kept(bytes: usize, every: Duration) -> Duration {
        let (ours, mut theirs) = duplex(1024);
        let mut stream = MinRateStream::new(ours);
        let since = Instant::now();
        let reading = async {
            let mut part = vec![0; bytes];
            loop {
                tokio::time::sleep(every).await;
                if theirs.read_exact(&mut part).await.is_err() {
                    return;
                }
            }
        };
        let writing = async { while stream.write_all(&[0; 4096]).await.is_ok() {} };
        tokio::select! {
            () = writing => {}
            () = reading => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn reader_below_the_lowest_rate_is_dropped_and_one_at_that_rate_is_kept() {
        let rate = READ_RATE_MIN as usize;
        assert_eq!(kept(1, WRITE_TIMEOUT * 2).await, WRITE_TIMEOUT);
        let trickled = kept(1, Duration::from_secs(1)).await;
        assert!(trickled < WRITE_TIMEOUT + Duration::from_secs(2), "{trickled:?}");
        let half = kept(rate / 2, Duration::from_secs(1)).await;
        assert!(half < WRITE_TIMEOUT * 3, "{half:?}");
        assert_eq!(kept(rate, Duration::from_secs(1)).await, Duration::from_secs(3600));
    }
}
