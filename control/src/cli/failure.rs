//! Why a command did not succeed, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

use crate::api::view::ReloadRefused;
use crate::config::Diagnostics;

/// The end of a command that did not succeed; displayed without a newline at
/// the end, for stderr.
#[derive(Debug)]
pub enum Failure {
    /// Exit status 1: the operation failed.
    Operation(anyhow::Error),
    /// Exit status 2: the command line asks for what cannot be.
    Usage(anyhow::Error),
    /// Exit status 2: a configuration file is wrong.
    Config(Diagnostics),
    /// Exit status 2: the running appliance found a configuration file wrong.
    Refused(ReloadRefused),
}

impl Failure {
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Operation(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::Refused(_) => 2,
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Operation(error)
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Config(diagnostics)
    }
}

/// `appliance: what (cause) (cause of the cause)`, or the diagnostics as they are.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(error) | Self::Usage(error) => {
                write!(f, "appliance: {error}")?;
                error
                    .chain()
                    .skip(1)
                    .try_for_each(|cause| write!(f, " ({cause})"))
            }
            Self::Config(diagnostics) => diagnostics.fmt(f),
            Self::Refused(ReloadRefused { diagnostics }) => {
                for diagnostic in diagnostics {
                    writeln!(f, "{diagnostic}")?;
                }
                f.write_str("appliance: the configuration was refused; nothing was changed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_are_printed_once_in_brackets() {
        let error = anyhow!("connection refused");
        let error = Err::<(), _>(error).context("cannot reach the appliance");
        let failure = Failure::from(error.unwrap_err());
        assert_eq!(
            failure.to_string(),
            "appliance: cannot reach the appliance (connection refused)"
        );
        assert_eq!(failure.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn refusal_has_every_diagnostic_on_a_line() {
        let diagnostics = vec!["a.toml:1:1: x".to_owned(), "a.toml:2:1: y".to_owned()];
        let failure = Failure::Refused(ReloadRefused { diagnostics });
        assert_eq!(
            failure.to_string(),
            "a.toml:1:1: x\na.toml:2:1: y\nappliance: the configuration was refused; nothing was changed"
        );
        assert_eq!(failure.exit_code(), ExitCode::from(2));
    }
}
