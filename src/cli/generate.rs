//! `portcullis completions` and `portcullis man`: generates shell completions and manual pages from the
//! definition of the commands.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

/// The shell to complete for.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|shell| shell.parse::<Shell>()))]
    shell: Shell,
}

/// Where the pages go.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this folder, instead of one page to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// With --dir: print the paths of the pages as JSON.
    #[arg(long, requires = "dir")]
    json: bool,
}

/// Prints the completion script for a shell.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "portcullis", &mut script);
    written(io::stdout().write_all(&script))
}

/// Prints the manual page of the command, or writes the pages of all commands.
pub(super) fn man(args: &ManArgs, command: Command) -> ExitCode {
    match &args.dir {
        None => {
            let mut page = Vec::new();
            written(Man::new(command).render(&mut page).and_then(|()| io::stdout().write_all(&page)))
        }
        Some(folder) => match pages(folder, command) {
            Ok(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                let text = if args.json { json!({ "pages": paths }).to_string() } else { paths.join("\n") };
                written(writeln!(io::stdout(), "{text}"))
            }
            Err(why) => {
                drop(writeln!(io::stderr(), "{}: cannot be written: {why}", folder.display()));
                ExitCode::FAILURE
            }
        },
    }
}

/// Writes a page for the command and each of its subcommands, and returns their paths.
fn pages(folder: &Path, mut command: Command) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    command.build();
    let mut paths = Vec::new();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|one| one.get_name() != "help").cloned());
        paths.push(Man::new(command).generate_to(folder)?);
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Returns the exit code. A closed standard output is not an error; a full disk is.
fn written(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            drop(writeln!(io::stderr(), "standard output: cannot be written: {error}"));
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
