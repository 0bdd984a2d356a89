//! The command `onceflow`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    onceflow::cli::run(std::env::args_os())
}
