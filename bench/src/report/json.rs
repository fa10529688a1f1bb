//! The figures for programs.

use serde_json::{Value, json};

use super::{Environment, Goal};
use crate::replay::Replayed;
use crate::vmmap::{Column, Measured};
use crate::work::Row;

fn row(row: Row, column: &Column, at: usize) -> Value {
    match &column.cells[at] {
        Ok(figure) => json!({"row": row.name(), "best_ns": figure.best, "median_ns": figure.median}),
        Err(reason) => json!({"row": row.name(), "left_out": reason}),
    }
}

fn size(measured: &Measured) -> Value {
    let peers = measured.peers.iter().map(|column| {
        let rows: Vec<Value> =
            measured.rows.iter().enumerate().map(|(at, &measured)| row(measured, column, at)).collect();
        json!({"peer": column.peer, "bytes_a_region": column.bytes, "rows": rows})
    });
    json!({"regions": measured.regions, "peers": peers.collect::<Vec<_>>()})
}

fn program(program: &Replayed) -> Value {
    let peers = program.peers.iter().map(|(peer, cell)| match cell {
        Ok(figure) => json!({"peer": peer, "best_ns": figure.best, "median_ns": figure.median}),
        Err(reason) => json!({"peer": peer, "left_out": reason}),
    });
    json!({
        "program": program.name,
        "processes": program.processes,
        "calls": program.calls,
        "peers": peers.collect::<Vec<_>>(),
    })
}

/// All of a measurement.
pub fn report(environment: &Environment, all: &[Measured], programs: &[Replayed], goals: &[Goal]) -> Value {
    json!({
        "environment": environment,
        "sizes": all.iter().map(size).collect::<Vec<_>>(),
        "programs": programs.iter().map(program).collect::<Vec<_>>(),
        "goals": goals,
    })
}
