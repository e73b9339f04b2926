//! A run over a sequence that arrives piece by piece: each action of a scan is listed and started as it comes.

use std::ops::Range;

use super::Sequence;
use super::program::{Compiled, Launches};
use super::resident::Array;
use super::run::{Arena, List, Run, write_tables};
use crate::error::{Error, Result};
use crate::exec::Piece;
use crate::plan::memory::Memory;
use crate::plan::outer::{Item, Outer};
use crate::tensor::Tensor;

/// A run of a program that was made ready for pieces.
pub(crate) struct Pieces<'a> {
    program: &'a Compiled,
    outer: &'a Outer,
    memory: Memory,
    arena: &'a Arena,
    /// Where the values are that stay on the device, by buffer.
    fixed: Vec<Option<Array>>,
    /// Address of each kernel's table.
    tables: Vec<u64>,
}

impl<'a> Pieces<'a> {
    /// Before the first of them. Errors: the device's.
    pub(crate) fn new(
        program: &'a Compiled,
        outer: &'a Outer,
        memory: Memory,
        arena: &'a Arena,
        fixed: Vec<Option<Array>>,
    ) -> Result<Pieces<'a>> {
        let mut pieces = Pieces { program, outer, memory, arena, fixed, tables: Vec::new() };
        pieces.write_tables()?;
        Ok(pieces)
    }

    fn write_tables(&mut self) -> Result<()> {
        self.tables = write_tables(self.program, &self.memory, &self.arena.region, &self.fixed)?;
        Ok(())
    }

    fn run(&self) -> Run<'_> {
        let Pieces { program, outer, memory, arena, fixed, .. } = self;
        Run { program, outer, memory, arena: &arena.region, fixed }
    }

    /// Copies the bound values of these buffers there, unless they stay.
    pub(crate) fn write(&self, bound: &[Option<&Tensor>], which: impl Fn(usize) -> bool) -> Result<()> {
        self.run().write_values(bound, which).map(|_| ())
    }

    /// Values with a time axis hold the steps from this one on.
    pub(crate) fn begin_at(&mut self, origin: usize) -> Result<()> {
        if self.memory.origin != origin {
            self.memory.origin = origin;
            self.write_tables()?;
        }
        Ok(())
    }

    /// The sequence has so many steps.
    pub(crate) fn end_at(&mut self, steps: usize) -> Result<()> {
        self.memory.steps = steps;
        self.write_tables()
    }

    /// Runs items of the program.
    pub(crate) fn items(&self, range: Range<usize>) -> Result<()> {
        self.start(|list| range.into_iter().try_for_each(|at| list.item(at, &self.outer.items[at])))
    }

    /// Runs a part of a scan.
    pub(crate) fn piece(&self, at: usize, piece: Piece) -> Result<()> {
        let (Item::Scan(item), Launches::Scan(launches)) = (&self.outer.items[at], &self.program.items[at])
        else {
            return Err(Error::argument("device", "bug: a piece of what is no scan"));
        };
        self.start(|list| match piece {
            Piece::Enter => list.enter(at, item, launches),
            Piece::Act(action, steps) => list.act(at, (item, launches), action, steps),
            Piece::Leave => list.leave(at, item, launches),
        })
    }

    fn start(&self, write: impl FnOnce(&mut List<'_>) -> Result<()>) -> Result<()> {
        let Pieces { program, memory, tables, .. } = self;
        let mut list = List::new(program, memory, tables);
        write(&mut list)?;
        if list.launches.is_empty() {
            return Ok(());
        }
        Sequence::new(&program.device, program.handle, list.launches)?.start()
    }

    /// The outputs.
    pub(crate) fn outputs(&self) -> Result<Vec<Tensor>> {
        let run = self.run();
        self.outer.outputs.iter().map(|(place, ty)| run.output(place, ty)).collect()
    }
}
