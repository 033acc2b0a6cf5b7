//! Runs under attack: one for each kind, in the phases of [`AttackPhases`]. The clients stay connected over all of
//! them.

use std::sync::atomic::AtomicBool;

use super::planned_attack::PlannedAttack;
use super::publisher::Publication;
use super::serve;
use super::stages::StageLengths;
use super::workload::LoadRun;
use crate::load::args::LoadArgs;
use crate::load::attack::{AttackKind, AttackPhases, AttackTask};
use crate::load::error::LoadError;
use crate::load::report::attacks::{AttackedRun, AttackedRuns};
use crate::load::report::comparison::LoadOutcome;

/// The same workload under each kind of attack in turn, `--pairs` times each. The report is that of the first run. With
/// `--serve`, each run has a server of its own.
pub fn run_attacked(
    args: &LoadArgs,
    mut run: LoadRun<'_>,
    stages: &StageLengths,
    stop: &AtomicBool,
) -> Result<LoadOutcome, LoadError> {
    let (kinds, left_out) = args
        .attacked
        .kinds(args.server.serve.is_some() || args.server.server_pid.is_some(), run.target.is_secured())?;
    let phases = AttackPhases { seconds: args.seconds };
    let stages = StageLengths { measure: phases.measured(), ..*stages };
    let mut attacked = AttackedRuns { runs: Vec::new(), left_out };
    for kind in kinds {
        for round in 0..args.server.pairs as usize {
            let _started = serve(&mut run)?;
            let attack = PlannedAttack::new(task(args, &run, kind)?, run.load_cores(None), phases);
            let report = run.run(&stages, stop, Some(attack))?.0;
            attacked.runs.push(AttackedRun { round, report });
        }
    }
    let report = attacked.runs.first().expect("there is at least one kind, and one round").report.clone();
    Ok(LoadOutcome { report, compared: None, attacked: Some(attacked) })
}

fn task(args: &LoadArgs, run: &LoadRun<'_>, kind: AttackKind) -> Result<AttackTask, LoadError> {
    let attacked = &args.attacked;
    Ok(AttackTask {
        kind,
        address: run.target.addresses()?[0],
        url: run.target.to_string(),
        ca: args.ca.clone(),
        authority: run.target.authority().to_owned(),
        path: run.target.path().to_owned(),
        symbol: Publication::symbol(0),
        connections: kind.connections(attacked.attack_connections),
        rate: attacked.attack_rate,
        priority: attacked.attack_priority,
        sources: attacked.attack_source.as_ref().map_or_else(Vec::new, |sources| sources.0.clone()),
        token: attacked.attack_token.clone(),
        server_pid: run.server_pid,
    })
}
