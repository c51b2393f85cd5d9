//! What can be asked of the verb `monitor`.
//! Must not know how any of it is done.

use clap::Subcommand;

use super::{logs, options::Options};

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a verb: up. It stays until Ctrl-C and leaves nothing behind; with --detach it goes on, and \
                  `down` stops it. With Docker: Prometheus and Grafana in containers. Without: the `prometheus` of \
                  this machine (root: installed by apt-get when it is missing), and `grafana` where it is installed."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) options: Options,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start Prometheus and Grafana
    Up(Options),
    /// Stop them, wherever they were started from
    Down {
        /// Drop the history in Docker's volumes as well
        #[arg(long)]
        volumes: bool,
    },
    /// Tell what runs: components, targets, rules, alerts; fails unless Prometheus and Grafana are ready
    Status,
    /// Show the end of their logs
    Logs(logs::Arguments),
    /// Check all that is needed, without starting anything; when it runs, every panel of the dashboard too
    Check(Options),
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(args: &[&str]) -> Result<Arguments, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"monitor").chain(args)).map(|cli| cli.arguments)
    }

    #[test]
    fn a_missing_verb_is_up() {
        let arguments = parse(&["--detach", "--grafana-port", "0"]).unwrap();
        assert!(arguments.verb.is_none() && arguments.options.detach);
        assert!(matches!(parse(&["up", "-d"]).unwrap().verb, Some(Verb::Up(options)) if options.detach));
        assert!(matches!(parse(&["down", "--volumes"]).unwrap().verb, Some(Verb::Down { volumes: true })));
        assert!(parse(&["--detach", "down"]).is_err());
    }
}
