//! What the commands write: escaped, and without an error if its reader has left.
//!
//! Names and texts come from files that others wrote, so control characters are escaped before a
//! terminal sees them. A closed pipe (`witgate check … | head`) ends the output and is not an
//! error.
//!
//! This module does not know: what is written.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use witgate_http::text::BoundedText;

/// The longest line, in bytes. The longest that a command writes is the schema of a configuration
/// key.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Writes a line to standard output. A line break in it is escaped too.
///
/// # Errors
/// Standard output cannot be written, for another reason than a closed pipe.
pub(super) fn print(text: impl Display) -> Result<(), String> {
    let written = write_lines(&mut io::stdout().lock(), [text.to_string().as_str()]);
    written.map_err(|error| format!("standard output: {error}"))
}

/// Writes a message, which may have several lines, to standard error. An error of that
/// is ignored: it could not be shown.
pub(super) fn print_error(text: impl Display) {
    let _ = write_lines(&mut io::stderr().lock(), text.to_string().split('\n'));
}

/// A path as a person would type it: relative to the working folder if it is below.
pub(super) fn shown_path(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&folder).unwrap_or(path).display().to_string()
}

fn write_lines<'a>(to: &mut impl Write, lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    use std::fmt::Write as _;
    for line in lines {
        let mut escaped = BoundedText::new(LINE_BYTES_MAX);
        // It only fails when the line is full, which its end says.
        let _ = escaped.write_str(line);
        match writeln!(to, "{}", escaped.finish()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    match to.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        flushed => flushed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() -> io::Result<()> {
        let mut out = vec![];
        write_lines(&mut out, ["a\u{1b}[2J\u{9b}\nb", "c\rd"])?;
        assert_eq!(String::from_utf8_lossy(&out), "a\\u{1b}[2J\\u{9b}\\nb\nc\\rd\n");
        Ok(())
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end() -> io::Result<()> {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(ErrorKind::BrokenPipe.into())
            }
        }
        write_lines(&mut Closed, ["a", "b"])
    }
}
