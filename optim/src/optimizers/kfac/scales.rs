//! How wrong the blocks are, measured along their own steps.
//!
//! What a block assumes of time, or of many uses in one step, can be wrong by a factor of a thousand where states hardly
//! change from use to use. One step length for all parameters would then be that of the worst block.

use retrograd_engine::{Params, Tensor};

use super::{Kfac, scale_of};
use crate::error::Result;
use crate::kfac::Curvature;
use crate::kfac::block::Block;
use crate::kfac::vector::{dot, scaled};

impl Kfac {
    /// Parameters of the blocks that have some in common; no group is empty.
    pub(super) fn groups(&self) -> Vec<Vec<&str>> {
        let mut groups: Vec<Vec<&str>> = Vec::new();
        for block in &self.blocks {
            let names = Block::params(block);
            let (mut joined, apart): (Vec<Vec<&str>>, Vec<Vec<&str>>) =
                groups.into_iter().partition(|g| g.iter().any(|n| names.contains(n)));
            joined.push(names);
            let mut group = joined.concat();
            group.sort_unstable();
            group.dedup();
            groups = apart;
            groups.push(group);
        }
        groups.retain(|g| !g.is_empty());
        groups
    }

    /// Measures, with exact products, how much more curved the loss is along each group's part of `F̂^{−1} ∇` than its
    /// blocks say, and keeps the geometric mean with what was measured before.
    pub(super) fn measure_scales(
        &self,
        at: u64,
        grads: &Params,
        delta: &Params,
        lambda: f64,
        tensors: &mut Params,
        curvature: &mut dyn Curvature,
    ) -> Result<()> {
        // As many directions at a time as the step itself has, so that no other program is needed.
        for pair in self.groups().chunks(2) {
            let part = |group: &Vec<&str>| -> Params {
                let mine = group.iter().filter_map(|&n| Some((n.to_string(), delta.get(n)?.clone())));
                mine.collect()
            };
            let parts: Vec<Params> = pair.iter().map(part).collect();
            let directions: Vec<&Params> = parts.iter().collect();
            let fisher = curvature.products(at, &directions)?;
            for (i, (group, part)) in pair.iter().zip(&parts).enumerate() {
                let curved = fisher[i * parts.len() + i] + lambda * dot(part, part)?;
                let scale = dot(grads, part)? / curved;
                if !scale.is_finite() || scale <= 0.0 {
                    continue;
                }
                let key = scale_of(group[0]);
                let before = Kfac::scalar(tensors, &key)?;
                let scale = if before > 0.0 { (before * scale).sqrt() } else { scale };
                tensors.insert(key, Tensor::scalar(scale));
            }
        }
        Ok(())
    }

    /// Multiplies each group's part of `delta` by its scale.
    pub(super) fn scale_groups(&self, tensors: &Params, delta: &mut Params) -> Result<()> {
        for group in self.groups() {
            let scale = Kfac::scalar(tensors, &scale_of(group[0]))?;
            for name in group.iter().filter(|_| scale > 0.0) {
                let Some(part) = delta.get(name) else { continue };
                let part: Params = [(name.to_string(), part.clone())].into_iter().collect();
                for (name, part) in scaled(&part, scale)?.iter() {
                    delta.insert(name, part.clone());
                }
            }
        }
        Ok(())
    }
}
