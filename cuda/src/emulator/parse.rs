//! PTX as text: into kernels, declarations and statements. No meaning yet.

/// A statement of a kernel's body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// Line in the file, from 1.
    pub(super) line: u32,
    /// `@p` or `@!p`: the register, and the value it must have.
    pub(super) guard: Option<(String, bool)>,
    /// The operation with its dots.
    pub(super) op: String,
    /// What stands behind it.
    pub(super) operands: Vec<Operand>,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A register, a label, a variable or a number.
    Word(String),
    /// `{a, b}`.
    Vector(Vec<String>),
    /// `[base+offset]`.
    Address(String, i64),
    /// `a|b`.
    Pair(String, String),
}

/// A variable in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// Its name.
    pub(super) name: String,
    /// Bytes; 0 for dynamic shared memory.
    pub(super) bytes: u32,
    /// Alignment in bytes.
    pub(super) align: u32,
}

/// A kernel as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) params: Vec<Variable>,
    /// Prefix and number of registers: `%r<5>` declares `%r0 … %r4`.
    pub(super) registers: Vec<(String, u32)>,
    pub(super) shared: Vec<Variable>,
    pub(super) local: Vec<Variable>,
    pub(super) statements: Vec<Statement>,
    /// Label, and the number of the statement behind it.
    pub(super) labels: Vec<(String, usize)>,
    /// Most threads of a block, from `__launch_bounds__`.
    pub(super) max_threads: Option<u32>,
}

/// A file as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct File {
    pub(super) entries: Vec<Entry>,
    /// Shared variables outside kernels, dynamic shared memory among them.
    pub(super) shared: Vec<Variable>,
}

/// Reads a file. Errors: the line, and what is not understood there.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let mut file = File::default();
    let mut entry: Option<Entry> = None;
    // A header runs from `.entry` to the brace; everything else ends with `;`, `:` or a brace.
    let (mut pending, mut pending_line, mut depth) = (String::new(), 0u32, 0u32);
    for (number, line) in text.lines().enumerate() {
        let number = number as u32 + 1;
        let line = line.split("//").next().unwrap_or("").trim();
        let error = |what: &str| Err(format!("line {number}: {what}: {line}"));
        if depth == 0 && pending.is_empty() && is_file_directive(line) {
            continue;
        }
        for piece in pieces(line) {
            match piece {
                "{" => {
                    if depth == 0 {
                        entry = Some(
                            header(&std::mem::take(&mut pending))
                                .map_err(|w| format!("line {number}: {w}"))?,
                        );
                    }
                    depth += 1;
                }
                "}" => {
                    let Some(closed) = depth.checked_sub(1) else { return error("a brace too many") };
                    depth = closed;
                    if depth == 0 {
                        file.entries.extend(entry.take());
                    }
                }
                ";" => {
                    let statement = std::mem::take(&mut pending);
                    let at = |w: String| format!("line {pending_line}: {w}");
                    match &mut entry {
                        Some(entry) => declare_or_push(entry, statement.trim(), pending_line).map_err(at)?,
                        None => file.shared.push(shared(statement.trim()).map_err(at)?),
                    }
                }
                piece => {
                    if let (Some(entry), Some(label)) = (&mut entry, piece.strip_suffix(':')) {
                        entry.labels.push((label.trim().to_owned(), entry.statements.len()));
                        continue;
                    }
                    if pending.is_empty() {
                        pending_line = number;
                    }
                    pending.push(' ');
                    pending.push_str(piece);
                }
            }
        }
    }
    if depth == 0 { Ok(file) } else { Err("the file ends inside a kernel".into()) }
}

fn is_file_directive(line: &str) -> bool {
    [".version", ".target", ".address_size"].iter().any(|d| line.starts_with(d))
}

/// Cuts a line at `;`, at braces that are no operands, and behind labels.
fn pieces(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix([';', '{', '}']) {
            found.push(&rest[..1]);
            rest = after.trim_start();
            continue;
        }
        // A brace behind an operation opens a vector.
        let mut end = rest.len();
        let mut vector = false;
        for (i, c) in rest.char_indices() {
            match c {
                ';' => {
                    end = i;
                    break;
                }
                '{' => vector = true,
                '}' if vector => vector = false,
                '}' => {
                    end = i;
                    break;
                }
                ':' => {
                    end = i + 1;
                    break;
                }
                _ => {}
            }
        }
        found.push(rest[..end].trim());
        rest = rest[end..].trim_start();
    }
    found
}

/// `.visible .entry name( .param .u64 a, … ) .maxntid 256, 1, 1`
fn header(text: &str) -> Result<Entry, String> {
    let Some(after) = text.split(".entry").nth(1) else {
        return Err(format!("no kernel, but: {}", text.trim()));
    };
    let (name, rest) = after.split_once('(').ok_or("a kernel without parameters in brackets")?;
    let (params, behind) = rest.split_once(')').ok_or("a parameter list without end")?;
    let params = params.split(',').map(str::trim).filter(|p| !p.is_empty()).map(variable);
    let max_threads = match behind.split(".maxntid").nth(1) {
        Some(bounds) => Some(
            bounds
                .split(|c: char| !c.is_ascii_digit())
                .filter(|w| !w.is_empty())
                .take(3)
                .try_fold(1u32, |p, w| w.parse::<u32>().ok().and_then(|n| p.checked_mul(n)))
                .ok_or("unreadable .maxntid")?,
        ),
        None => None,
    };
    Ok(Entry {
        name: name.trim().to_owned(),
        params: params.collect::<Result<_, _>>()?,
        max_threads,
        ..Entry::default()
    })
}

/// `.param .align 8 .b8 name[16]`, `.param .u64 name`, `.shared .align 4 .b8 name[512]`
fn variable(text: &str) -> Result<Variable, String> {
    let mut words = text.split_whitespace();
    let (mut align, mut size, mut name) = (0, 0, None);
    while let Some(word) = words.next() {
        match word {
            ".align" => align = words.next().and_then(|w| w.parse().ok()).ok_or("unreadable .align")?,
            ".param" | ".shared" | ".local" | ".extern" | ".visible" | ".ptr" | ".global" => {}
            w if w.starts_with('.') => {
                size = width_of(w.rsplit('.').next().unwrap_or(w)).ok_or(format!("type {w}"))?
            }
            w => name = Some(w),
        }
    }
    let name = name.ok_or("a variable without name")?;
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => {
            let count = count.trim_end_matches(']');
            (name, if count.is_empty() { 0 } else { count.parse().map_err(|_| format!("size of {name}"))? })
        }
        None => (name, 1),
    };
    Ok(Variable { name: name.to_owned(), bytes: size * count, align: align.max(size) })
}

fn shared(text: &str) -> Result<Variable, String> {
    if text.contains(".shared") { variable(text) } else { Err(format!("not understood: {text}")) }
}

/// Bytes of a type such as `f32`.
pub(super) fn width_of(ty: &str) -> Option<u32> {
    match ty {
        "pred" => Some(1),
        ty => {
            ty.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<u32>().ok().map(|bits| bits / 8)
        }
    }
}

fn declare_or_push(entry: &mut Entry, text: &str, line: u32) -> Result<(), String> {
    if let Some(rest) = text.strip_prefix(".reg") {
        let name = rest.split_whitespace().nth(1).ok_or("a register without name")?;
        let (prefix, count) = match name.split_once('<') {
            Some((prefix, count)) => {
                (prefix, count.trim_end_matches('>').parse().map_err(|_| "number of registers")?)
            }
            None => (name, 0),
        };
        entry.registers.push((prefix.to_owned(), count));
    } else if text.starts_with(".shared") {
        entry.shared.push(variable(text)?);
    } else if text.starts_with(".local") {
        entry.local.push(variable(text)?);
    } else if !text.starts_with(".pragma") && !text.starts_with(".loc") && !text.is_empty() {
        entry.statements.push(statement(text, line)?);
    }
    Ok(())
}

fn statement(text: &str, line: u32) -> Result<Statement, String> {
    let (guard, text) = match text.strip_prefix('@') {
        Some(rest) => {
            let (p, rest) = rest.split_once(char::is_whitespace).ok_or("a guard without operation")?;
            (Some((p.trim_start_matches('!').to_owned(), !p.starts_with('!'))), rest.trim())
        }
        None => (None, text),
    };
    let (op, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut operands = Vec::new();
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let close = match rest.as_bytes()[0] {
            b'{' => Some('}'),
            b'[' => Some(']'),
            _ => None,
        };
        let end = match close {
            Some(close) => rest.find(close).ok_or("an operand without end")? + 1,
            None => rest.find(',').unwrap_or(rest.len()),
        };
        operands.push(operand(rest[..end].trim())?);
        rest = rest[end..].trim_start().trim_start_matches(',').trim_start();
    }
    Ok(Statement { line, guard, op: op.to_owned(), operands })
}

fn operand(text: &str) -> Result<Operand, String> {
    if let Some(inside) = text.strip_prefix('{') {
        let inside = inside.trim_end_matches('}');
        return Ok(Operand::Vector(inside.split(',').map(|w| w.trim().to_owned()).collect()));
    }
    if let Some(inside) = text.strip_prefix('[') {
        let inside = inside.trim_end_matches(']');
        let (base, offset) = match inside.split_once('+') {
            Some((base, offset)) => (base, offset.trim().parse().map_err(|_| format!("offset in {text}"))?),
            None => (inside, 0),
        };
        return Ok(Operand::Address(base.trim().to_owned(), offset));
    }
    if let Some((a, b)) = text.split_once('|') {
        return Ok(Operand::Pair(a.trim().to_owned(), b.trim().to_owned()));
    }
    Ok(Operand::Word(text.to_owned()))
}
