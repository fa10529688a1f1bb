//! `pagewarden-bench`: measures pagewarden's map of regions, the parts of its pager, its capabilities, its
//! access to foreign memory, and their peers.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use pagewarden_bench::bytes;
use pagewarden_bench::pager::contest::Pace;
use pagewarden_bench::replay::{self, Replay};
use pagewarden_bench::report::pager::{CAPABILITIES, PARTS, PHYS, Part, Table};
use pagewarden_bench::report::{self, Environment};
use pagewarden_bench::vmmap::{Effort, Measured, PEERS, Peer, measure};
use pagewarden_bench::work::{Layout, Row};

/// The same work done by parts of pagewarden and by their peers.
#[derive(Parser)]
#[command(name = "pagewarden-bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The map of regions against its peers, in nanoseconds of thread time.
    ///
    /// Each map first passes a differential test. Then, at each size, all maps do each row in turn, several times
    /// over; the least time of a map is its figure. Last, recorded memory calls of real programs are replayed.
    Vmmap(VmmapArgs),
    /// Frames, page tables, faults and forks, in nanoseconds of thread time.
    ///
    /// All who do a row first show that they do it right, then they take turns, in an order that is another each time. The
    /// least time of a turn is the figure.
    Pager(PartsArgs),
    /// Charges, look-ups of handles, and objects in address spaces, in nanoseconds of thread time.
    ///
    /// Measured as the parts of the pager are.
    Capabilities(PartsArgs),
    /// Accesses to memory that somebody else also touches, windows and reservations, in nanoseconds of thread time.
    ///
    /// Measured as the parts of the pager are.
    Phys(PartsArgs),
    /// Do one row with pagewarden's map alone, for a program that counts instructions.
    ///
    /// Everything but the row itself is the same with any count.
    Instructions(InstructionsArgs),
}

/// What to do, and how often.
#[derive(Args)]
struct InstructionsArgs {
    /// Print the names of the rows and stop.
    #[arg(long)]
    list: bool,
    /// The row.
    #[arg(long, default_value = "look-up")]
    row: String,
    /// How many regions the map has.
    #[arg(long, default_value = "1k", value_parser = size)]
    regions: usize,
    /// How often to do the row.
    #[arg(long, default_value_t = 0)]
    count: usize,
}

/// What to measure of some parts, and how long.
#[derive(Args)]
struct PartsArgs {
    /// How often everybody does each row.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Only rows whose name contains one of these.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    rows: Vec<String>,
    /// Five short turns: a first impression.
    #[arg(long, conflicts_with = "turns")]
    quick: bool,
    /// Write the figures to this file as well, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write what is printed to this file as well.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What to measure and how long.
#[derive(Args)]
struct VmmapArgs {
    /// Numbers of regions; `k` stands for a thousand.
    #[arg(long, value_delimiter = ',', default_value = "10,1k,10k,65k", value_parser = size)]
    sizes: Vec<usize>,
    /// How often each map does each row; the best time counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Only maps whose name contains one of these; pagewarden's takes part always.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    peers: Vec<String>,
    /// Only rows and programs whose name contains one of these.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    rows: Vec<String>,
    /// Three short passes: a first impression.
    #[arg(long, conflicts_with = "passes")]
    quick: bool,
    /// Write the figures to this file as well, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write what is printed to this file as well.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1000));
    let number = digits.parse::<usize>().map_err(|error| error.to_string())?;
    number.checked_mul(unit).filter(|size| (1..=1 << 20).contains(size)).ok_or("1 to 1048576 regions".to_owned())
}

/// What is printed, and kept to be written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn add(&mut self, text: &str) {
        println!("{text}");
        self.0.push_str(text);
        self.0.push('\n');
    }
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Vmmap(args) => vmmap(&args),
        Task::Pager(args) => measure_parts(&PARTS, &args),
        Task::Capabilities(args) => measure_parts(&CAPABILITIES, &args),
        Task::Phys(args) => measure_parts(&PHYS, &args),
        Task::Instructions(args) => instructions(&args),
    }
}

fn instructions(args: &InstructionsArgs) -> Result<()> {
    if args.list {
        Row::ALL.iter().for_each(|row| println!("{}", row.name()));
        return Ok(());
    }
    let row = Row::ALL.into_iter().find(|row| row.name() == args.row).context("there is no such row")?;
    let layout = Layout::new(args.regions);
    PEERS[0].fill(&layout).run(row, args.count);
    Ok(())
}

/// Those of `all` whose name contains one of `parts`, or all if there is none.
fn is_wanted(name: &str, parts: &[String]) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

fn measure_parts(parts: &[Part], args: &PartsArgs) -> Result<()> {
    let turns = usize::try_from(args.turns).context("turns")?;
    let pace = if args.quick { Pace { turns: 5, length: 1e6 } } else { Pace { turns, length: 3e6 } };
    let mut page = Page::default();
    let environment = Environment::here();
    page.add(&format!("{}.\n", environment.line()));
    let wanted = |name: &str| is_wanted(name, &args.rows);
    let mut tables = Vec::new();
    for measure_part in parts {
        let table = measure_part(&wanted, pace)?;
        if !table.rows.is_empty() {
            page.add(&table.text());
            tables.push(table);
        }
    }
    ensure!(!tables.is_empty(), "there is no such row");
    page.add(&format!("Times are the least of {} turns.\n", pace.turns));
    let goals: Vec<_> = tables.iter().flat_map(Table::goals).collect();
    if !goals.is_empty() {
        page.add(&report::of_goals(&goals));
    }
    if let Some(file) = &args.markdown {
        fs::write(file, page.0).with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report::pager::json(&environment, &tables, &goals))?;
        fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The maps that take part: those that are wanted and pass the test.
fn peers(args: &VmmapArgs, page: &mut Page) -> Vec<&'static Peer> {
    let mut peers = Vec::new();
    for (at, peer) in PEERS.iter().enumerate() {
        if at > 0 && !is_wanted(peer.name, &args.peers) {
            continue;
        }
        match peer.check() {
            Ok(()) => peers.push(peer),
            Err(problem) => page.add(&format!("**{} is not measured.** {problem}\n", peer.name)),
        }
    }
    peers
}

fn vmmap(args: &VmmapArgs) -> Result<()> {
    let mut page = Page::default();
    let environment = Environment::here();
    page.add(&format!("{}.\n", environment.line()));
    let peers = peers(args, &mut page);
    ensure!(peers.first().is_some_and(|peer| peer.name == PEERS[0].name), "pagewarden's own map is wrong");
    let rows: Vec<Row> = Row::ALL.into_iter().filter(|row| is_wanted(row.name(), &args.rows)).collect();
    let replays: Vec<Replay> = Replay::all()?.into_iter().filter(|replay| is_wanted(replay.name, &args.rows)).collect();
    ensure!(!rows.is_empty() || !replays.is_empty(), "there is no such row");
    let passes = usize::try_from(args.passes).context("passes")?;
    let effort = if args.quick { Effort { passes: 3, sample: 5e6 } } else { Effort { passes, sample: 20e6 } };
    let mut all: Vec<Measured> = Vec::new();
    if !rows.is_empty() {
        let counted = bytes::count(&args.sizes)?;
        for &size in &args.sizes {
            let measured = measure(size, &peers, &rows, effort)?.with_bytes(&counted);
            page.add(&report::of_size(&measured));
            all.push(measured);
        }
    }
    let programs = replays.iter().map(|replay| replay::measure(replay, &peers, effort)).collect::<Result<Vec<_>>>()?;
    page.add(&report::of_programs(&programs));
    page.add(&format!("Times are the best of {} passes; those of programs are of one call.\n", effort.passes));
    page.add(&all.first().map(report::left_out).unwrap_or_default());
    let goals = report::goals(&all);
    if !goals.is_empty() {
        page.add(&report::of_goals(&goals));
    }
    if let Some(file) = &args.markdown {
        fs::write(file, page.0).with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report::json(&environment, &all, &programs, &goals))?;
        fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
