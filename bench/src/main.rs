//! `pagewarden-bench`: measures pagewarden's map of regions and its peers.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use pagewarden_bench::report;
use pagewarden_bench::vmmap::{Effort, PEERS, Peer, measure};
use pagewarden_bench::work::Row;

/// The same work done by pagewarden's map of regions and by its peers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure every map at several sizes.
    Vmmap(VmmapArgs),
}

/// What to measure and how long.
#[derive(Args)]
struct VmmapArgs {
    /// Numbers of regions; `k` stands for a thousand.
    #[arg(long, value_delimiter = ',', default_value = "10,1k,10k,65k", value_parser = size)]
    sizes: Vec<usize>,
    /// Passes over all maps; the best of them is the figure.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Only maps whose name contains one of these; pagewarden's takes part always.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only rows whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Three short passes: a first impression.
    #[arg(long)]
    quick: bool,
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1000));
    let number = digits.parse::<usize>().map_err(|error| error.to_string())?;
    number.checked_mul(unit).filter(|size| (1..=1 << 20).contains(size)).ok_or("1 to 1048576 regions".to_owned())
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Vmmap(args) => vmmap(&args),
    }
}

fn vmmap(args: &VmmapArgs) -> Result<()> {
    let wanted = |name: &str, parts: &[String]| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    let peers: Vec<&Peer> = PEERS
        .iter()
        .enumerate()
        .filter(|(at, peer)| *at == 0 || wanted(peer.name, &args.peers))
        .map(|(_, peer)| peer)
        .collect();
    let rows: Vec<Row> = Row::ALL.into_iter().filter(|row| wanted(row.name(), &args.rows)).collect();
    let passes = usize::try_from(args.passes).context("passes")?;
    let effort = if args.quick { Effort { passes: 3, sample: 5e6 } } else { Effort { passes, sample: 20e6 } };
    for &size in &args.sizes {
        println!("### {size} regions\n\n{}", report::of_size(&measure(size, &peers, &rows, effort)?));
    }
    Ok(())
}
