//! Package managers and what they do to files, over a Debian that has the packages already.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::engine::Engine;
use super::ground::Ground;
use super::{Options, median};
use crate::spread::Spread;

/// A name, and what a shell does.
const WORKLOADS: &[(&str, &str)] = &[
    (
        "apt",
        "apt-get install --yes --no-install-recommends curl openssh-client iputils-ping dbus less cron",
    ),
    (
        "apt-compilers",
        "apt-get install --yes --no-install-recommends build-essential git",
    ),
    (
        "pip",
        "pip install --break-system-packages --root-user-action=ignore --no-index --find-links /wheels numpy requests",
    ),
    (
        "owners",
        "useradd -m -u 1234 app && cp -r /usr/lib/python3* /home/app/ && chown -R app:app /home/app \
         && su -s /bin/sh app -c 'find ~ | wc -l' && tar -C /home -cf /all.tar app && mkdir /out && tar -C /out -xpf /all.tar",
    ),
    (
        "mix",
        "mkdir -p /usr/share/man/man1; apt-get install --yes --no-install-recommends postgresql openjdk-17-jre-headless nodejs sudo golang-go \
         && pg_ctlcluster 15 main start && su postgres -c 'psql -Atc \"select 1\"' && pg_ctlcluster 15 main stop \
         && node -e 'console.log(1)' && java -version && useradd plain && echo 'plain ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/plain \
         && su -s /bin/sh plain -c 'sudo id -u' && mkdir /go && cd /go \
         && printf 'package main\\nimport \"fmt\"\\nfunc main() { fmt.Println(1) }\\n' > main.go && HOME=/root go build main.go && ./main",
    ),
];
/// What the workloads install, and what they need before.
const PACKAGES: &str = "curl openssh-client iputils-ping dbus less cron build-essential git postgresql \
    openjdk-17-jre-headless nodejs sudo golang-go";
const INSTALLED: &str = "python3,python3-pip,ca-certificates";

/// Every workload in turns with all others, and what it takes compared with a chroot.
pub(crate) fn measure(
    engines: &[Engine],
    place: &Path,
    options: &Options,
    print: impl Fn(Value),
) -> Result<()> {
    let base = match &options.base {
        Some(base) => base.clone(),
        None => make_base()?,
    };
    let ground = Ground::of_tar(engines, place, &base)?;
    for (name, script) in WORKLOADS {
        let wanted = options.only.is_empty() || options.only.iter().any(|only| only == name);
        if !wanted || options.small && *name != "owners" {
            continue;
        }
        let script = format!("export DEBIAN_FRONTEND=noninteractive; {script}");
        let mut times = vec![Vec::new(); engines.len()];
        for _ in 0..options.runs {
            for (engine, times) in engines.iter().zip(&mut times) {
                let step = ground.second_step(engine)?;
                times.push(engine.run(&step, &["/bin/sh", "-c", &script])?);
            }
        }
        compared(name, engines, times).into_iter().for_each(&print);
    }
    Ok(())
}

fn compared(name: &str, engines: &[Engine], times: Vec<Vec<Duration>>) -> Vec<Value> {
    let native = median(&times[0]).as_secs_f64();
    let lines = engines.iter().zip(times).map(|(engine, times)| {
        let ratio = median(&times).as_secs_f64() / native;
        json!({
            "figure": "packages",
            "workload": name,
            "engine": engine.name(),
            "native_times": (ratio * 100.0).round() / 100.0,
            "times": Spread::of(times).report(),
        })
    });
    lines.collect()
}

/// Debian with the packages in apt's archive, kept for the next time.
fn make_base() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("a target folder")?;
    let base = target.join("sandbox-bench.tar");
    if base.exists() {
        return Ok(base);
    }
    let made = base.with_extension("part.tar");
    let wheels = target.join("sandbox/wheels");
    ensure!(
        wheels.exists(),
        "run `cargo xtask test --only machine` before"
    );
    let download = format!(
        "chroot \"$1\" apt-get install --yes --quiet=2 --download-only --no-install-recommends {PACKAGES} >&2"
    );
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase", "--skip=cleanup/apt"])
        .arg(format!("--include={INSTALLED}"))
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--customize-hook",
            &download,
        ])
        .args([
            "--customize-hook",
            &format!("copy-in {} /", wheels.display()),
        ])
        .args([
            "bookworm",
            &made.display().to_string(),
            "http://deb.debian.org/debian",
        ]);
    let status = command.status().context("mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap fails");
    std::fs::rename(&made, &base)?;
    Ok(base)
}
