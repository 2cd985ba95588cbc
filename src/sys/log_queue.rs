//! Log queue: hands log lines to a thread that writes them, so that logging never blocks its caller.
//!
//! A write to standard error blocks while nothing reads the other end, such as a stopped journal. Only the writer
//! thread makes such writes. All other threads put their lines into a bounded queue. A line that does not fit is
//! dropped and counted. When the queue is half empty again, the writer logs how many lines were dropped.
//!
//! `tracing-appender` was considered. Its queue bounds lines but not bytes, its guard waits up to
//! 1.1 s at shutdown, and that guard then prints to standard output, which may block as well.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::journal::Journal;

/// Maximum number of lines in the queue.
const QUEUE_MAX_LINES: usize = 4 << 10;

/// Maximum size of the lines in the queue, in bytes, including the line that is being written.
const QUEUE_MAX_BYTES: usize = 1 << 20;

/// The queue of standard error. A process has one standard error, so it has one such queue.
static ON_STDERR: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// What the lines of a queue are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain lines.
    Lines,
    /// Records for [`Journal`].
    Records,
}

/// A bounded queue of log lines and the thread that writes them.
#[derive(Debug)]
pub struct LogQueue {
    state: Mutex<State>,
    /// Notified when a line is queued and when the queue becomes empty.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// Size of `lines` and of the line that is being written.
    bytes: usize,
    /// Lines that were dropped and not reported yet.
    unreported: u64,
}

impl LogQueue {
    /// Starts the queue of standard error. [`Self::stderr_lines_dropped`] returns its count. Its lines are records for
    /// [`Journal`] if standard error is connected to the journal.
    ///
    /// # Errors
    /// When standard error is closed, or the thread cannot be started.
    pub fn start_on_stderr() -> io::Result<(Arc<Self>, LogFormat)> {
        // Not through `std::io::Stderr`, whose lock would be held while a write blocks.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (queue, format) = match Journal::behind(&stderr) {
            Some(journal) => (Self::start(journal)?, LogFormat::Records),
            None => (Self::start(stderr)?, LogFormat::Lines),
        };
        // Only tests start a second one.
        let _ = ON_STDERR.set(queue.clone());
        Ok((queue, format))
    }

    /// Number of lines that standard error's queue has dropped since it was started.
    #[must_use]
    pub fn stderr_lines_dropped() -> u64 {
        ON_STDERR.get().map_or(0, |queue| queue.lines_dropped())
    }

    /// Starts the thread that writes lines to `output`. The thread runs until the process exits.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), dropped: AtomicU64::new(0) });
        let writer = queue.clone();
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.write_lines(output))?;
        Ok(queue)
    }

    /// Number of lines that were dropped since the start.
    fn lines_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every queued line is written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        // The result is ignored, because the process exits even if the timeout expired.
        let _ = self.changed.wait_timeout_while(self.state(), timeout, |state| state.bytes > 0);
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        let fits = state.lines.len() < QUEUE_MAX_LINES && state.bytes.saturating_add(line.len()) <= QUEUE_MAX_BYTES;
        if fits {
            state.bytes += line.len();
            state.lines.push_back(line.into());
            drop(state);
            self.changed.notify_all();
        } else {
            state.unreported += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_lines(&self, mut output: impl Write) {
        loop {
            let line = self.next_line();
            // If the output fails, such as a pipe without a reader, there is no place to report that.
            let _ = output.write_all(&line);
            let mut state = self.state();
            state.bytes -= line.len();
            // The report is a line too, and must not be dropped because the queue is still full.
            let has_recovered = state.lines.len() <= QUEUE_MAX_LINES / 2 && state.bytes <= QUEUE_MAX_BYTES / 2;
            let dropped = if has_recovered { std::mem::take(&mut state.unreported) } else { 0 };
            drop(state);
            self.changed.notify_all();
            if dropped > 0 {
                tracing::warn!("{dropped} log lines were dropped because standard error was not read");
            }
        }
    }

    fn next_line(&self) -> Box<[u8]> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock panics with a change half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues one line for each call and never blocks: the formatter of `tracing_subscriber` writes a whole line.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    const ENOUGH: Duration = Duration::from_secs(10);

    /// An output that blocks until the test takes a line from it.
    struct Output(mpsc::SyncSender<Vec<u8>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_owned()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (Arc<LogQueue>, mpsc::Receiver<Vec<u8>>) {
        let (sender, lines) = mpsc::sync_channel(0);
        (LogQueue::start(Output(sender)).expect("a thread"), lines)
    }

    fn log(queue: &LogQueue, line: &str) {
        let mut queue: &LogQueue = queue;
        queue.write_all(line.as_bytes()).expect("never fails");
    }

    #[test]
    fn lines_are_written_in_order() {
        let (queue, lines) = start();
        for number in 0..100 {
            log(&queue, &format!("line {number}\n"));
        }
        for number in 0..100 {
            assert_eq!(lines.recv_timeout(ENOUGH).expect("a line"), format!("line {number}\n").as_bytes());
        }
        assert_eq!(queue.lines_dropped(), 0);
        queue.flush(ENOUGH);
    }

    #[test]
    fn lines_are_dropped_and_counted_when_the_output_blocks() {
        let (queue, lines) = start();
        let began = Instant::now();
        let offered = QUEUE_MAX_LINES + 1000;
        (0..offered).for_each(|_| log(&queue, "x\n"));
        assert!(began.elapsed() < ENOUGH, "{:?}", began.elapsed());
        let dropped = usize::try_from(queue.lines_dropped()).expect("few");
        // The thread may have taken one line from the queue already.
        assert!((999..=1000).contains(&dropped), "{dropped}");
        for _ in dropped..offered {
            lines.recv_timeout(ENOUGH).expect("a line");
        }
        queue.flush(ENOUGH);
        assert!(lines.try_recv().is_err(), "nothing is left");
    }

    #[test]
    fn queue_is_bounded_in_bytes() {
        let (queue, _lines) = start();
        let line = "x".repeat(QUEUE_MAX_BYTES / 4);
        (0..6).for_each(|_| log(&queue, &line));
        assert_eq!(queue.lines_dropped(), 2);
        assert!(queue.state().bytes <= QUEUE_MAX_BYTES);
    }

    #[test]
    fn flush_gives_up_when_the_output_blocks() {
        let (queue, _lines) = start();
        log(&queue, "x\n");
        let began = Instant::now();
        queue.flush(Duration::from_millis(50));
        assert!((Duration::from_millis(50)..ENOUGH).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}
