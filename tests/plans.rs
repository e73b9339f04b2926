//! Random programs under every plan: a plan changes no bit, computes what the reference computes, and takes the
//! memory it says.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use retrograd_engine::{Error, Params, Program, RunOptions, Stash, Tensor, reference};
use support::program::{Built, Random, random};
use support::{alone, ratio};

/// Largest ratio between plan and reference: they sum in different orders, and a recurrence carries a difference on
/// from step to step.
const LIMIT: f64 = 100.0;

fn compile(built: &Built, threads: usize, budget: Option<usize>) -> Program {
    compile_with(built, threads, budget, Stash::Exact)
}

fn compile_with(built: &Built, threads: usize, budget: Option<usize>, stash: Stash) -> Program {
    let options = RunOptions { threads: Some(threads), budget, stash, ..Default::default() };
    Program::new(&built.tape, &built.outputs, options).unwrap()
}

/// Whether a run took what its plan said: to 1 %.
fn took_what_it_said(planned: usize, measured: usize) -> bool {
    measured.abs_diff(planned) * 100 <= planned
}

/// Runs under a budget and holds plan, memory and bits to what they must be.
fn check_run(
    built: &Built,
    values: &Params,
    (steps, rows): (usize, usize),
    (threads, budget, stash): (usize, Option<usize>, Stash),
    first: &[Tensor],
) -> Result<(), TestCaseError> {
    let mut program = compile_with(built, threads, budget, stash);
    let plan = program.plan(steps, rows).unwrap();
    let got = program.run(&[values]).unwrap();
    let (planned, measured) = (plan.peak_bytes(), program.last_peak_bytes());
    let what = format!("T={steps}, N={rows}, {threads} threads, budget {budget:?}, {stash} stash");
    prop_assert!(budget.is_none_or(|b| planned <= b), "{what}: planned peak {planned}");
    prop_assert!(took_what_it_said(planned, measured), "{what}: planned {planned}, measured {measured}");
    for ((name, got), first) in built.names.iter().zip(&got).zip(first) {
        prop_assert!(
            got.bit_eq(first),
            "{what}: {name} has other bits, ratio {:.1e}\n{got:?}\n{first:?}\n{}",
            ratio(got, first, 1e-3, 1),
            plan.explain()
        );
    }
    Ok(())
}

fn check(program: &Random, steps: usize, rows: usize) -> Result<(), TestCaseError> {
    let _alone = alone();
    let built = program.build().unwrap();
    let values = program.values(&built, steps, rows).unwrap();
    let first = compile(&built, 1, None).run(&[&values]).unwrap();
    let expected = reference::evaluate(&built.tape, &built.outputs, &[&values]).unwrap();
    let n = 10 + steps + rows;
    for ((name, got), expected) in built.names.iter().zip(&first).zip(&expected) {
        let r = ratio(got, expected, 0.01, n);
        prop_assert!(
            r < LIMIT,
            "T={steps}, N={rows}: {name} is not the reference's, ratio {r:.1e}\n{got:?}\n{expected:?}\n{}",
            compile(&built, 1, None).plan(steps, rows).unwrap().explain()
        );
    }
    for threads in 1..=3 {
        let most = compile(&built, threads, None).plan(steps, rows).unwrap().peak_bytes();
        let smallest = match compile(&built, threads, Some(1)).run(&[&values]) {
            Err(Error::Budget { budget: 1, smallest, .. }) => smallest,
            other => return Err(TestCaseError::fail(format!("a budget of 1 byte gives {other:?}"))),
        };
        prop_assert!(smallest <= most, "smallest {smallest}, without a budget {most}");
        match compile(&built, threads, Some(smallest - 1)).plan(steps, rows) {
            Err(Error::Budget { smallest: again, .. }) => prop_assert_eq!(again, smallest),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
            Ok(plan) => {
                let planned = plan.peak_bytes();
                return Err(TestCaseError::fail(format!("{planned} fit below the smallest, {smallest}")));
            }
        }
        let between = (1..4).map(|k| Some(smallest + (most - smallest) * k / 4));
        for budget in [Some(smallest), None].into_iter().chain(between) {
            check_run(&built, &values, (steps, rows), (threads, budget, Stash::Exact), &first)?;
        }
    }
    Ok(())
}

/// With values kept in 16 bits, plans agree among themselves.
fn check_rounded(program: &Random, stash: Stash, steps: usize, rows: usize) -> Result<(), TestCaseError> {
    let _alone = alone();
    let built = program.build().unwrap();
    let values = program.values(&built, steps, rows).unwrap();
    let first = compile_with(&built, 1, None, stash).run(&[&values]).unwrap();
    for threads in 1..=3 {
        let most = compile_with(&built, threads, None, stash).plan(steps, rows).unwrap().peak_bytes();
        let smallest = match compile_with(&built, threads, Some(1), stash).plan(steps, rows) {
            Err(Error::Budget { smallest, .. }) => smallest,
            other => return Err(TestCaseError::fail(format!("a budget of 1 byte gives {other:?}"))),
        };
        for budget in [Some(smallest), Some(smallest + (most.max(smallest) - smallest) / 2), None] {
            check_run(&built, &values, (steps, rows), (threads, budget, stash), &first)?;
        }
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases },
        // Failing seeds are kept beside the tests and tried first.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/plans.regressions"))),
        ..default
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn short_programs(program in random(1..7), steps in 0..12usize, rows in 1..5usize) {
        check(&program, steps, rows)?;
    }
}

proptest! {
    #![proptest_config(config(30))]

    /// More than one tile of rows and more than one chunk of steps.
    #[test]
    fn long_and_wide_programs(
        program in random(1..7),
        steps in prop_oneof![Just(1usize), Just(40), Just(150)],
        rows in prop_oneof![Just(1usize), Just(17), Just(40)],
    ) {
        check(&program, steps, rows)?;
    }
}

proptest! {
    #![proptest_config(config(12))]

    /// Vectors and matrices beyond one block of every kernel.
    #[test]
    fn programs_on_large_states(
        program in random(9..50),
        steps in prop_oneof![Just(3usize), Just(70)],
        rows in prop_oneof![Just(1usize), Just(6), Just(37)],
    ) {
        check(&program, steps, rows)?;
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn rounded_records(
        program in random(1..7),
        stash in prop_oneof![Just(Stash::Bf16), Just(Stash::F16)],
        steps in prop_oneof![Just(0usize), Just(7), Just(90)],
        rows in prop_oneof![Just(1usize), Just(4), Just(37)],
    ) {
        check_rounded(&program, stash, steps, rows)?;
    }
}
