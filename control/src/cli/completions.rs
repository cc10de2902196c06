//! `appliance completions`: what a shell offers when Tab is pressed, made of the command definitions.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, EXIT_STATUS, Failure, print};

/// Print what makes a shell complete this program's commands and options
///
/// For this session, in bash:
///
///   source <(appliance completions bash)
///
/// For all of them:
///
///   appliance completions bash > /usr/share/bash-completion/completions/appliance
///   appliance completions zsh  > /usr/share/zsh/vendor-completions/_appliance
///   appliance completions fish > /usr/share/fish/vendor_completions.d/appliance.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 1 when stdout is broken.
    pub fn run(self) -> Result<(), Failure> {
        print(&script(self.shell))
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "appliance", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_offered() {
        let command = Cli::command();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let name = command.get_name();
                assert!(script.contains(name), "{shell}: {name}");
                for option in command.get_arguments().filter_map(|a| a.get_long()) {
                    assert!(script.contains(option), "{shell}: {name} --{option}");
                }
            }
        }
    }

    #[test]
    fn shells_take_it() {
        // bash is everywhere where this project is built.
        let run = std::process::Command::new("bash")
            .args(["-n", "-c", &script(Shell::Bash)])
            .status();
        assert!(run.unwrap().success());
    }
}
