//! Runs a tool whose output matters only if it fails.
//!
//! This module does not know: which tools there are.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs `command` and discards its output.
///
/// # Errors
///
/// The program cannot be run or fails. The text has the output and `hint`, which says what to do.
pub(crate) fn run(command: &mut Command, hint: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} cannot be run: {hint}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        bail!("{program} failed ({}): {hint}\n{}", output.status, text.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_failed_tool_has_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), "try again").err();
        assert_eq!(
            error.map(|error| error.to_string()),
            Some("sh failed (exit status: 3): try again\nout\nerr".into())
        );
    }
}
