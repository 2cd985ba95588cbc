//! A terminal for commands: a pseudo-terminal, and what a user sees on it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use tokio::process::{Child, Command};

use crate::daemon::{eventually, with_timeout};
use crate::workspace::{BINARY, Workspace};

/// A command on a terminal of its own, as its foreground process.
pub struct OnTerminal {
    pub child: Child,
    master: File,
    /// Keeps the terminal open after the end of the command.
    slave: File,
    display: Arc<Mutex<Display>>,
}

impl OnTerminal {
    /// Starts a command on a terminal of this size.
    pub fn start(workspace: &Workspace, arguments: &[&str], columns: u16, lines: u16) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let end = || Stdio::from(slave.try_clone().expect("another descriptor"));
        let prepared = workspace.command(&[]);
        let mut command = Command::new("setsid");
        command.args(["--ctty", BINARY]).args(arguments).env_clear().env("TERM", "xterm").kill_on_drop(true);
        command.envs(prepared.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("run");
        let display = Arc::new(Mutex::new(Display::new(columns.into(), lines.into())));
        let (mut output, shown) = (master.try_clone().expect("another descriptor"), display.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("not poisoned").write(&bytes[..length]);
            }
        });
        Self { child, master, slave, display }
    }

    /// Waits until the screen fulfils a condition, and returns it.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut latest = String::new();
        let waiting = eventually(what, async || {
            latest = self.display().text();
            condition(&latest).then_some(())
        });
        waiting.await;
        latest
    }

    /// The display.
    pub fn display(&self) -> Display {
        self.display.lock().expect("not poisoned").clone()
    }

    /// Types keys.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    /// Changes the size of the window.
    pub fn resize(&self, columns: u16, lines: u16) {
        self.display.lock().expect("not poisoned").resize(columns.into(), lines.into());
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).expect("resized");
    }

    /// Whether the terminal echoes keys, as it does for a shell.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.slave).expect("its settings").local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    /// Waits for the end of the command, which must restore the terminal. Returns its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let status = with_timeout("its exit", self.child.wait()).await.expect("waited for");
        eventually("the terminal is restored", async || {
            let Display { is_alternate, is_cursor_hidden, wraps, .. } = self.display();
            (!is_alternate && !is_cursor_hidden && wraps && self.echoes()).then_some(())
        })
        .await;
        status.code()
    }
}

/// The screen of a terminal: the part of ECMA-48 and xterm that the command line uses.
#[derive(Clone)]
pub struct Display {
    columns: usize,
    cells: Vec<Vec<char>>,
    /// The cells at the end of the latest frame.
    shown: Vec<Vec<char>>,
    row: usize,
    column: usize,
    pending: Vec<u8>,
    pub is_alternate: bool,
    pub is_cursor_hidden: bool,
    pub wraps: bool,
    /// Lines that the latest frame moved off the top of the screen.
    pub scrolled: usize,
    /// Characters that the latest frame wrote beyond the last column.
    pub overflowed: usize,
    /// Text that was written while the main screen was shown.
    pub on_main_screen: String,
}

impl Display {
    fn new(columns: usize, lines: usize) -> Self {
        Self {
            columns,
            cells: vec![vec![' '; columns]; lines],
            shown: Vec::new(),
            row: 0,
            column: 0,
            pending: Vec::new(),
            is_alternate: false,
            is_cursor_hidden: false,
            wraps: true,
            scrolled: 0,
            overflowed: 0,
            on_main_screen: String::new(),
        }
    }

    fn resize(&mut self, columns: usize, lines: usize) {
        self.columns = columns;
        self.cells = vec![vec![' '; columns]; lines];
        self.shown.clear();
        (self.row, self.column) = (0, 0);
    }

    /// The text of the latest frame, without spaces at the ends of lines and without empty lines at its end.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self.shown.iter().map(|line| line.iter().collect::<String>()).collect();
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        let text = match str::from_utf8(&self.pending) {
            Ok(text) => text.to_owned(),
            // A character may be split between two reads.
            Err(_) => return,
        };
        // A control sequence may be too.
        let complete = match text.rfind('\u{1b}') {
            Some(at) if !text[at + 1..].contains(|end: char| end.is_ascii_alphabetic()) => at,
            _ => text.len(),
        };
        self.pending = text.as_bytes()[complete..].to_vec();
        let mut rest = &text[..complete];
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            match character {
                '\u{1b}' => {
                    let end = rest.find(|end: char| end.is_ascii_alphabetic()).expect("complete") + 1;
                    self.control(&rest[..end]);
                    rest = &rest[end..];
                }
                '\r' => self.column = 0,
                '\n' if self.row + 1 < self.cells.len() => self.row += 1,
                '\n' => {
                    self.scrolled += 1;
                    self.cells.remove(0);
                    self.cells.push(vec![' '; self.columns]);
                }
                _ => self.put(character),
            }
        }
    }

    fn put(&mut self, character: char) {
        if !self.is_alternate {
            self.on_main_screen.push(character);
        }
        if self.column < self.columns {
            self.cells[self.row][self.column] = character;
            self.column += 1;
        } else {
            self.overflowed += 1;
        }
    }

    fn control(&mut self, sequence: &str) {
        match sequence {
            "[H" => {
                (self.row, self.column) = (0, 0);
                (self.scrolled, self.overflowed) = (0, 0);
            }
            "[K" => self.cells[self.row][self.column.min(self.columns - 1)..].fill(' '),
            "[J" => {
                self.control("[K");
                self.cells[self.row + 1..].iter_mut().for_each(|line| line.fill(' '));
            }
            "[?1049h" | "[?1049l" => {
                self.is_alternate = sequence.ends_with('h');
                self.cells.iter_mut().for_each(|line| line.fill(' '));
                self.shown.clear();
            }
            "[?25h" | "[?25l" => self.is_cursor_hidden = sequence.ends_with('l'),
            "[?7h" | "[?7l" => self.wraps = sequence.ends_with('h'),
            "[?2026h" => {}
            "[?2026l" => self.shown.clone_from(&self.cells),
            colour if colour.ends_with('m') => {}
            unknown => panic!("a control sequence that this display does not know: {unknown:?}"),
        }
    }
}
