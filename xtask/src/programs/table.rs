//! The programs that have to behave as without pagewarden. None prints process IDs, addresses or times.
use std::time::Duration;

use crate::job::Ended;
use crate::lab::User;

/// A program that runs on both sides.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    /// Files of `tests/programs` that it wants in its folder.
    pub(crate) files: &'static [&'static str],
    /// Runs natively on both sides before.
    pub(crate) prepare: &'static [&'static str],
    pub(crate) argv: &'static [&'static str],
    /// Part of what it prints when all is well.
    pub(crate) says: &'static str,
    /// How it ends when all is well.
    pub(crate) ends: Ended,
    pub(crate) user: User,
    /// It hangs if it takes longer; far more than it needs.
    pub(crate) limit: Duration,
}

/// What most of them have in common.
pub(crate) const PLAIN: Program = Program {
    name: "",
    needs: &[],
    files: &[],
    prepare: &[],
    argv: &[],
    says: "",
    ends: Ended::Code(0),
    user: User::Same,
    limit: Duration::from_secs(120),
};

/// Every program.
pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "c-static",
        needs: &["gcc"],
        files: &["hello.c"],
        prepare: &["gcc", "-O1", "-static", "-o", "hello", "hello.c"],
        argv: &["./hello", "one", "two"],
        says: "2 arguments",
        ..PLAIN
    },
    Program {
        name: "c-malloc-churn",
        needs: &["gcc"],
        files: &["churn.c"],
        prepare: &["gcc", "-O1", "-pthread", "-o", "churn", "churn.c"],
        argv: &["./churn"],
        says: "churned",
        ..PLAIN
    },
    Program {
        name: "c-exec-from-thread",
        needs: &["gcc"],
        files: &["thread_exec.c"],
        prepare: &["gcc", "-O1", "-pthread", "-o", "thread_exec", "thread_exec.c"],
        argv: &["./thread_exec"],
        says: "after exec",
        ..PLAIN
    },
    Program {
        name: "c-forks",
        needs: &["gcc"],
        files: &["forks.c"],
        prepare: &["gcc", "-O1", "-pthread", "-o", "forks", "forks.c"],
        argv: &["./forks"],
        says: "exec with 4001 arguments",
        ..PLAIN
    },
    Program {
        name: "c-forks-static",
        needs: &["gcc"],
        files: &["forks.c"],
        prepare: &["gcc", "-O1", "-static", "-pthread", "-o", "forks", "forks.c"],
        argv: &["./forks"],
        says: "exec with 4001 arguments",
        ..PLAIN
    },
    Program {
        name: "c-signals",
        needs: &["gcc"],
        files: &["signals.c"],
        prepare: &["gcc", "-O1", "-pthread", "-o", "signals", "signals.c"],
        argv: &["./signals"],
        says: "handled",
        ..PLAIN
    },
    Program {
        name: "killed-by-segv",
        needs: &["gcc"],
        files: &["segv.c"],
        prepare: &["gcc", "-O0", "-o", "segv", "segv.c"],
        argv: &["./segv"],
        says: "about to",
        ends: Ended::Killed(11),
        ..PLAIN
    },
    Program { name: "exit-0", needs: &["bash"], argv: &["bash", "-c", "exit 0"], ..PLAIN },
    Program { name: "exit-1", needs: &["bash"], argv: &["bash", "-c", "exit 1"], ends: Ended::Code(1), ..PLAIN },
    Program { name: "exit-123", needs: &["bash"], argv: &["bash", "-c", "exit 123"], ends: Ended::Code(123), ..PLAIN },
    Program { name: "exit-255", needs: &["bash"], argv: &["bash", "-c", "exit 255"], ends: Ended::Code(255), ..PLAIN },
    Program {
        name: "bash-pipelines",
        needs: &["bash"],
        files: &["pipelines.sh"],
        argv: &["bash", "pipelines.sh"],
        says: "pipelines done",
        ..PLAIN
    },
    Program {
        name: "python-threads",
        needs: &["python3"],
        files: &["threads.py"],
        argv: &["python3", "threads.py"],
        says: "threads done",
        ..PLAIN
    },
    Program {
        name: "python-subprocess",
        needs: &["python3", "bash"],
        files: &["subprocesses.py"],
        argv: &["python3", "subprocesses.py"],
        says: "subprocesses done",
        ..PLAIN
    },
    Program {
        name: "python-multiprocessing",
        needs: &["python3"],
        files: &["processes.py"],
        argv: &["python3", "processes.py"],
        says: "processes done",
        ..PLAIN
    },
    Program {
        name: "python-stop-continue",
        needs: &["python3"],
        files: &["stops.py"],
        argv: &["python3", "stops.py"],
        says: "stops done",
        ..PLAIN
    },
    Program {
        name: "node-churn",
        needs: &["node"],
        files: &["churn.js"],
        argv: &["node", "churn.js"],
        says: "churn done",
        ..PLAIN
    },
    Program {
        name: "node-workers",
        needs: &["node"],
        files: &["workers.js"],
        argv: &["node", "workers.js"],
        says: "workers done",
        ..PLAIN
    },
    Program {
        name: "gcc-compile-and-run",
        needs: &["gcc", "bash"],
        files: &["hello.c"],
        argv: &["bash", "-c", "gcc -O2 -Wall -o hello hello.c && ./hello compiled"],
        says: "compiled",
        ..PLAIN
    },
    Program {
        name: "java-hello",
        needs: &["java", "javac"],
        files: &["Hello.java"],
        argv: &["java", "Hello.java", "source"],
        says: "hello source",
        ..PLAIN
    },
    Program {
        name: "java-churn",
        needs: &["java", "javac"],
        files: &["Churn.java"],
        prepare: &["javac", "Churn.java"],
        argv: &["java", "-Xmx96m", "-cp", ".", "Churn"],
        says: "churn done",
        ..PLAIN
    },
    Program {
        name: "sqlite3",
        needs: &["sqlite3"],
        files: &["queries.sql"],
        argv: &["sqlite3", "-batch", "-init", "queries.sql", "test.db", "select 'sqlite done'"],
        says: "sqlite done",
        ..PLAIN
    },
    Program {
        name: "git",
        needs: &["git", "bash"],
        files: &["repository.sh"],
        argv: &["bash", "repository.sh"],
        says: "repository done",
        ..PLAIN
    },
    Program {
        name: "cargo-build",
        needs: &["cargo", "rustc", "gcc", "bash"],
        files: &["crate/Cargo.toml", "crate/lib.rs", "crate/main.rs"],
        argv: &[
            "bash",
            "-c",
            "cargo --quiet build --offline && cargo --quiet test --offline >/dev/null && target/debug/small",
        ],
        says: "crate done",
        limit: Duration::from_secs(300),
        ..PLAIN
    },
    Program {
        name: "redis-background-save",
        needs: &["redis-server", "redis-cli", "bash"],
        files: &["redis.sh"],
        argv: &["bash", "redis.sh"],
        says: "redis done",
        ..PLAIN
    },
    Program {
        name: "postgres",
        needs: &["initdb", "bash", "setpriv"],
        files: &["postgres.sh"],
        argv: &["bash", "postgres.sh"],
        says: "postgres done",
        user: User::Ordinary,
        limit: Duration::from_secs(300),
        ..PLAIN
    },
];
