//! The arguments of the verb `monitor`.
//! Must not know how the verbs work.

use clap::Subcommand;

use super::{logs, options::Options};

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a verb: up. It runs until Ctrl-C and removes its files; with --detach it keeps running, and \
                  `down` stops it. With Docker: Prometheus and Grafana in containers. Without: the `prometheus` of \
                  this machine (as root, apt-get installs it if missing), and `grafana` if installed."
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
    /// Stop them, however they were started
    Down {
        /// Also remove the history in Docker's volumes
        #[arg(long)]
        volumes: bool,
    },
    /// Show what runs: components, targets, rules, alerts; fails unless Prometheus and Grafana are ready
    Status,
    /// Show the end of their logs
    Logs(logs::Arguments),
    /// Check the requirements without starting anything; for a running stack, also every panel of the dashboard
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
