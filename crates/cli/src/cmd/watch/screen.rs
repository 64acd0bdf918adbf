//! The terminal while something is shown on all of it: taken over when it is opened, put back when it is dropped.
//! Knows nothing of what is shown.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::frame::Size;

/// The other screen of the terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first line; to the end of a line; to the end of the screen.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";
/// Where a terminal does not say how large it is.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The terminal, taken over.
pub struct Screen {
    before: Termios,
}

impl Screen {
    /// Takes the terminal over: keys come one by one and are not shown, Ctrl-Z does nothing; Ctrl-C goes on to be a signal.
    pub fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut taken = before.clone();
        taken.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // Nobody would put the terminal back before the shell has it.
        taken.special_codes[SpecialCodeIndex::VSUSP] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &taken)?;
        let screen = Self { before };
        write(ENTER)?;
        Ok(screen)
    }

    /// The keys that are pressed, byte by byte; ends with the input.
    pub fn keys(&self) -> mpsc::UnboundedReceiver<u8> {
        let (sender, keys) = mpsc::unbounded_channel();
        // A thread that nobody waits for: the process ends while it reads.
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(io::stdin().lock().read(&mut byte), Ok(1)) && sender.send(byte[0]).is_ok() {}
        });
        keys
    }

    /// Shows a text of at most as many lines and columns as there are.
    pub fn show(&mut self, text: impl FnOnce(Size) -> String) -> io::Result<()> {
        let told = tcgetwinsize(io::stdout()).ok().filter(|told| told.ws_col > 0 && told.ws_row > 0);
        let size = told.map_or(USUAL, |told| Size { columns: told.ws_col.into(), rows: told.ws_row.into() });
        let text = text(size);
        let lines: Vec<&str> = text.lines().take(size.rows).collect();
        write(&format!("{HOME}{}{REST_OF_LINE}{REST_OF_SCREEN}", lines.join(&format!("{REST_OF_LINE}\r\n"))))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting back.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
