//! The tape: an append-only list of nodes, and values that index it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Op, Ty};
use crate::scan::ScanOp;
use crate::shape::{Lead, Shape};
use crate::tensor::Tensor;

/// A recorded value: an index into the tape it was recorded on.
///
/// Inside a step of a scan, values of the enclosing tape may be used directly; they are captured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Var {
    pub(crate) tape: u32,
    pub(crate) index: u32,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// A named parameter.
    Param(String),
    /// A named input.
    Input(String),
    /// A constant.
    Const(Tensor),
    /// The state at the start of the step (inside a step).
    Carry(usize),
    /// State number `i` at the end of the step (inside a step, of its inverse).
    After(usize),
    /// This step's entry of a sequence (inside a step).
    X(usize),
    /// A value of the enclosing tape, the same at every step (inside a step).
    Captured(usize),
    /// An operation.
    Op(Arc<dyn Op>),
    /// A scan; its outputs are [`NodeKind::Port`]s.
    Scan(Arc<ScanOp>),
    /// Output number of a scan.
    Port(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) inputs: SmallVec<[Var; 4]>,
    pub(crate) ty: Ty,
    pub(crate) label: Option<String>,
}

/// An append-only list of recorded operations. Recording checks types and computes nothing.
#[derive(Debug)]
pub struct Tape {
    pub(crate) id: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parent: Option<Box<Tape>>,
    /// Values of the parent used here, in the order of their placeholders.
    pub(crate) captured: Vec<(Var, Var)>,
    seen: HashMap<(String, SmallVec<[Var; 4]>), Var>,
    names: HashMap<String, Var>,
}

fn fresh_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Default for Tape {
    fn default() -> Tape {
        Tape::new()
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape {
            id: fresh_id(),
            nodes: Vec::new(),
            parent: None,
            captured: Vec::new(),
            seen: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// An empty tape inside `parent`, which moves in until [`Tape::leave`].
    pub(crate) fn enter(parent: &mut Tape) -> Tape {
        let mut inner = Tape::new();
        inner.parent = Some(Box::new(std::mem::take(parent)));
        inner
    }

    /// Gives the enclosing tape back.
    pub(crate) fn leave(&mut self, parent: &mut Tape) {
        if let Some(p) = self.parent.take() {
            *parent = *p;
        }
    }

    /// Whether this tape records the step of a scan.
    pub fn is_step(&self) -> bool {
        self.parent.is_some()
    }

    pub(crate) fn add(&mut self, kind: NodeKind, inputs: SmallVec<[Var; 4]>, ty: Ty) -> Var {
        let index = self.nodes.len() as u32;
        self.nodes.push(Node { kind, inputs, ty, label: None });
        Var { tape: self.id, index }
    }

    fn named(&mut self, kind: NodeKind, name: &str, ty: Ty) -> Result<Var> {
        if self.is_step() {
            return Err(Error::argument(
                "tape",
                format!("`{name}` declared inside a step; declare it outside"),
            ));
        }
        if let Some(&old) = self.names.get(name) {
            let node = &self.nodes[old.index as usize];
            let same_kind = std::mem::discriminant(&node.kind) == std::mem::discriminant(&kind);
            if same_kind && node.ty == ty {
                return Ok(old);
            }
            return Err(Error::Binding {
                name: name.into(),
                what: format!("declared twice, as {} and as {ty}", node.ty),
            });
        }
        let v = self.add(kind, SmallVec::new(), ty);
        self.nodes[v.index as usize].label = Some(name.into());
        self.names.insert(name.into(), v);
        Ok(v)
    }

    /// Declares a parameter: a named value without batch axes. Declaring the same name and type again returns
    /// the same value. Errors: the name is taken by something else; inside a step.
    pub fn param(&mut self, name: &str, dtype: DType, dims: impl AsRef<[usize]>) -> Result<Var> {
        self.named(NodeKind::Param(name.into()), name, Ty::new(dtype, Shape::shared(dims)))
    }

    /// Declares an input with batch axes. Errors as [`Tape::param`].
    pub fn input(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<Var> {
        self.named(NodeKind::Input(name.into()), name, Ty::new(dtype, shape))
    }

    /// A constant without batch axes.
    pub fn constant(&mut self, tensor: Tensor) -> Var {
        let ty = Ty::new(tensor.dtype(), Shape::shared(tensor.dims()));
        let key = (tensor.len() == 1).then(|| {
            (
                format!("const {} {:?} {:?}", ty, tensor.get(0).re.to_bits(), tensor.get(0).im.to_bits()),
                SmallVec::new(),
            )
        });
        if let Some(&v) = key.as_ref().and_then(|k| self.seen.get(k)) {
            return v;
        }
        let v = self.add(NodeKind::Const(tensor), SmallVec::new(), ty);
        if let Some(key) = key {
            self.seen.insert(key, v);
        }
        v
    }

    /// A real constant without axes, in the real component type of `like`.
    pub fn scalar(&mut self, like: Var, value: f64) -> Result<Var> {
        let dtype = self.dtype(like)?.real();
        Ok(self.constant(Tensor::full(dtype, [], value)?))
    }

    /// The value on this tape: itself, or the placeholder of a captured value of an enclosing tape.
    pub(crate) fn resolve(&mut self, v: Var) -> Result<Var> {
        if v.tape == self.id {
            if (v.index as usize) < self.nodes.len() {
                return Ok(v);
            }
            return Err(Error::ForeignVar { op: "tape", var: format!("{v:?}") });
        }
        if let Some(&(_, inner)) = self.captured.iter().find(|(outer, _)| *outer == v) {
            return Ok(inner);
        }
        let foreign = || Error::ForeignVar { op: "tape", var: format!("{v:?}") };
        let parent = self.parent.as_mut().ok_or_else(foreign)?;
        let outer = parent.resolve(v)?;
        if let Some(&(_, inner)) = self.captured.iter().find(|(o, _)| *o == outer) {
            return Ok(inner);
        }
        let node = &parent.nodes[outer.index as usize];
        if let NodeKind::Const(t) = &node.kind
            && t.len() == 1
        {
            let t = t.clone();
            return Ok(self.constant(t));
        }
        let (ty, label) = (node.ty.clone(), node.label.clone());
        if ty.shape.lead.has_t() {
            let what = format!(
                "a sequence {ty} is used inside a step without being one of its inputs; pass it as xs"
            );
            return Err(Error::argument("scan", what));
        }
        let inner = self.add(NodeKind::Captured(self.captured.len()), SmallVec::new(), ty);
        self.nodes[inner.index as usize].label = label;
        self.captured.push((outer, inner));
        Ok(inner)
    }

    /// Records an operation. Errors: what [`Op::infer`] says.
    pub fn push(&mut self, op: impl Op, inputs: &[Var]) -> Result<Var> {
        self.push_arc(Arc::new(op), inputs)
    }

    /// [`Tape::push`] for a shared operation.
    pub fn push_arc(&mut self, op: Arc<dyn Op>, inputs: &[Var]) -> Result<Var> {
        let inputs = inputs.iter().map(|&v| self.resolve(v)).collect::<Result<SmallVec<[Var; 4]>>>()?;
        let key = (format!("{}{op:?}", op.name()), inputs.clone());
        if let Some(&v) = self.seen.get(&key) {
            return Ok(v);
        }
        let tys: SmallVec<[Ty; 4]> = inputs.iter().map(|v| self.nodes[v.index as usize].ty.clone()).collect();
        let ty = op.infer(&tys)?;
        let v = self.add(NodeKind::Op(op), inputs, ty);
        self.seen.insert(key, v);
        Ok(v)
    }

    pub(crate) fn node(&self, v: Var) -> Result<&Node> {
        let mut tape = self;
        loop {
            if v.tape == tape.id {
                let found = tape.nodes.get(v.index as usize);
                return found.ok_or_else(|| Error::ForeignVar { op: "tape", var: format!("{v:?}") });
            }
            match &tape.parent {
                Some(p) => tape = p,
                None => return Err(Error::ForeignVar { op: "tape", var: format!("{v:?}") }),
            }
        }
    }

    /// Type of a value.
    pub fn ty(&self, v: Var) -> Result<&Ty> {
        Ok(&self.node(v)?.ty)
    }

    /// Shape of a value.
    pub fn shape(&self, v: Var) -> Result<&Shape> {
        Ok(&self.node(v)?.ty.shape)
    }

    /// Element type of a value.
    pub fn dtype(&self, v: Var) -> Result<DType> {
        Ok(self.node(v)?.ty.dtype)
    }

    /// Size of the last ordinary axis. Errors: no ordinary axis.
    pub fn last_dim(&self, op: &'static str, v: Var) -> Result<usize> {
        let shape = self.shape(v)?;
        shape.dims.last().copied().ok_or_else(|| Error::shape(op, "input", "at least one axis", shape))
    }

    /// Names a value for [`Plan::explain`](crate::Plan::explain) and error messages.
    pub fn label(&mut self, v: Var, name: &str) {
        if v.tape == self.id
            && let Some(node) = self.nodes.get_mut(v.index as usize)
        {
            node.label = Some(name.into());
        }
    }

    /// Parameters in declaration order: name, value, type.
    pub fn params(&self) -> impl Iterator<Item = (&str, Var, &Ty)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| match &n.kind {
            NodeKind::Param(name) => Some((name.as_str(), Var { tape: self.id, index: i as u32 }, &n.ty)),
            _ => None,
        })
    }

    /// Inputs in declaration order: name, value, type.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, Var, &Ty)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| match &n.kind {
            NodeKind::Input(name) => Some((name.as_str(), Var { tape: self.id, index: i as u32 }, &n.ty)),
            _ => None,
        })
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn lead(&self, v: Var) -> Result<Lead> {
        Ok(self.shape(v)?.lead)
    }
}
