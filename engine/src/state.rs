//! Named structures of values: states, inputs and outputs of a scan.

use crate::error::Result;
use crate::tape::Var;

/// A structure of recorded values with named parts. The parts of two values of one type correspond by order.
///
/// Implemented for `()`, [`Var`], tuples, arrays, `Vec` and `Option`; [`state!`](crate::state!) declares a named
/// one.
pub trait State: Sized {
    /// Rebuilds the structure with every part replaced by `f(name, part)`.
    fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self>;

    /// Parts with their names, in order.
    fn parts(&self) -> Result<Vec<(String, Var)>> {
        let mut parts = Vec::new();
        self.map_parts(&mut |name, v| {
            parts.push((name.to_string(), v));
            Ok(v)
        })?;
        Ok(parts)
    }
}

/// `outer.inner`, or the one that is not empty.
pub fn join_names(outer: &str, inner: &str) -> String {
    match (outer, inner) {
        ("", name) | (name, "") => name.to_string(),
        (outer, inner) => format!("{outer}.{inner}"),
    }
}

/// Maps a part under a name.
pub fn map_part<S: State>(part: &S, name: &str, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<S> {
    part.map_parts(&mut |inner, v| f(&join_names(name, inner), v))
}

impl State for Var {
    fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
        f("", *self)
    }
}

impl State for () {
    fn map_parts(&self, _: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
        Ok(())
    }
}

impl<S: State> State for Vec<S> {
    fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
        self.iter().enumerate().map(|(i, s)| map_part(s, &i.to_string(), f)).collect()
    }
}

impl<S: State> State for Option<S> {
    fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
        self.as_ref().map(|s| s.map_parts(f)).transpose()
    }
}

impl<S: State, const K: usize> State for [S; K] {
    fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
        let parts: Vec<S> =
            self.iter().enumerate().map(|(i, s)| map_part(s, &i.to_string(), f)).collect::<Result<_>>()?;
        parts.try_into().map_err(|_| crate::Error::argument("state", "array length changed"))
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: State),+> State for ($($name,)+) {
            fn map_parts(&self, f: &mut dyn FnMut(&str, Var) -> Result<Var>) -> Result<Self> {
                Ok(($(map_part(&self.$index, stringify!($index), f)?,)+))
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

/// Declares a structure of values and implements [`State`](crate::State) for it.
///
/// ```
/// retrograd_engine::state! {
///     /// State of a long short-term memory.
///     pub struct LstmState { h, c }
/// }
/// // expands to
/// //   pub struct LstmState { pub h: Var, pub c: Var }
/// //   impl State for LstmState { .. maps h, then c .. }
/// ```
#[macro_export]
macro_rules! state {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        $vis struct $name { $(pub $field: $crate::Var),+ }
        impl $crate::State for $name {
            fn map_parts(
                &self,
                f: &mut dyn FnMut(&str, $crate::Var) -> $crate::Result<$crate::Var>,
            ) -> $crate::Result<Self> {
                Ok($name { $($field: f(stringify!($field), self.$field)?),+ })
            }
        }
    };
}
