//! A filter as an SQL condition.
//!
//! Not everything that can be searched for is a column: regular expressions, phrases and header values are compared with the text
//! itself. So a filter becomes a condition that is true for every matching letter, and perhaps for more; each letter found is then
//! checked against the filter, unless the condition is exact. Below a NOT the same is done for letters that do *not* match.

use rusqlite::types::Value;

use crate::core::time::Timestamp;
use crate::dlq::filter::{Compare, Filter, Match, NumberField, Term};
use crate::dlq::groups::hash;
use crate::dlq::index::take::{MANY, Token};
use crate::dlq::index::{GroupRow, Index, IndexError, OTHER_TOPIC, schema};

/// Words and headers of more letters than this are not looked up: scanning from the youngest letter finds enough of them sooner.
const RARE: i64 = 5_000;

/// A condition on `letter AS l`.
#[derive(Debug)]
pub(super) struct Condition {
    pub sql: String,
    pub given: Vec<Value>,
    /// Whether it is true for matching letters only.
    pub is_exact: bool,
}

impl Index {
    pub(super) fn condition(&self, filter: &Filter, now: Timestamp) -> Result<Condition, IndexError> {
        let mut condition = Condition { sql: String::new(), given: Vec::new(), is_exact: true };
        self.put(filter, true, now, &mut condition)?;
        Ok(condition)
    }

    fn put(&self, filter: &Filter, positive: bool, now: Timestamp, out: &mut Condition) -> Result<(), IndexError> {
        match filter {
            Filter::All => out.sql.push_str(if positive { "1" } else { "0" }),
            Filter::Not(inner) => self.put(inner, !positive, now, out)?,
            Filter::And(all) => self.put_all(all, positive, if positive { " AND " } else { " OR " }, now, out)?,
            Filter::Or(all) => self.put_all(all, positive, if positive { " OR " } else { " AND " }, now, out)?,
            Filter::Term(term) => match self.term(term, now)? {
                Part::Exact(sql, given) => {
                    let sql = if positive { sql } else { format!("NOT COALESCE({sql}, 0)") };
                    out.sql.push_str(&sql);
                    out.given.extend(given);
                }
                Part::Hint(sql, given) if positive => {
                    out.sql.push_str(&sql);
                    out.given.extend(given);
                    out.is_exact = false;
                }
                Part::Hint(..) | Part::Nothing => {
                    out.sql.push('1');
                    out.is_exact = false;
                }
            },
        }
        Ok(())
    }

    fn put_all(&self, all: &[Filter], positive: bool, by: &str, now: Timestamp, out: &mut Condition) -> Result<(), IndexError> {
        out.sql.push('(');
        for (i, filter) in all.iter().enumerate() {
            if i > 0 {
                out.sql.push_str(by);
            }
            self.put(filter, positive, now, out)?;
        }
        if all.is_empty() {
            out.sql.push_str(if by == " AND " { "1" } else { "0" });
        }
        out.sql.push(')');
        Ok(())
    }

    fn term(&self, term: &Term, now: Timestamp) -> Result<Part, IndexError> {
        Ok(match term {
            Term::Reason(by) => Part::exact(&self.of_groups(|group| by.fits(group.reason.as_deref()))?),
            Term::Class(by) => self.of_classes(by)?,
            Term::Group(by) => Part::exact(&self.of_groups(|group| by.fits(Some(&group.id)))?),
            Term::Topic(by) => self.of_topics(by)?,
            Term::Message(Match::Absent) => Part::exact("(SELECT message FROM detail WHERE n = l.n) IS NULL"),
            Term::Key(Match::Absent) => Part::exact("l.key_hash IS NULL"),
            Term::Key(Match::Any(keys)) => {
                let hashes = keys.iter().map(|key| Value::Integer(hash(key.as_bytes()))).collect::<Vec<_>>();
                // A key that is not UTF-8 is compared in its printable form, which has another hash.
                if keys.iter().any(|key| key.contains(char::REPLACEMENT_CHARACTER)) {
                    return Ok(Part::Nothing);
                }
                Part::Hint(format!("l.key_hash IN ({})", places(hashes.len())), hashes)
            }
            Term::Job(Match::Any(jobs)) => {
                let given = jobs.iter().cloned().map(Value::Text).collect::<Vec<_>>();
                let sql = "EXISTS (SELECT 1 FROM fate f WHERE f.n = l.n AND f.appended = l.appended AND f.job IN";
                Part::Exact(format!("{sql} ({}))", places(given.len())), given)
            }
            Term::Job(Match::Absent) => {
                Part::exact("NOT EXISTS (SELECT 1 FROM fate f WHERE f.n = l.n AND f.appended = l.appended)")
            }
            Term::Header(name, Match::Any(values)) => {
                let tokens: Vec<String> = values.iter().map(|value| Token::header(name.as_bytes(), value).to_string()).collect();
                self.looked_up(&format!("{} OR {MANY}", tokens.join(" OR ")))?
            }
            Term::Text(words) => {
                let tokens: Vec<String> = words.iter().map(|word| Token::word(word).to_string()).collect();
                if tokens.is_empty() {
                    return Ok(Part::Nothing);
                }
                self.looked_up(&format!("({}) OR {MANY}", tokens.join(" AND ")))?
            }
            // Only the text itself can be compared.
            Term::Message(_) | Term::Key(Match::Like(_)) | Term::Job(Match::Like(_)) | Term::Header(..) => Part::Nothing,
            Term::State(states) => {
                let numbers: Vec<String> = states.iter().map(|state| schema::state_number(*state).to_string()).collect();
                Part::exact(&format!("l.state IN ({})", numbers.join(", ")))
            }
            Term::Number(NumberField::Partition, compare, number) => {
                Part::Exact(format!("(l.n >> 44) {} ?", operator(*compare)), vec![Value::Integer(*number)])
            }
            Term::Number(NumberField::Offset, compare, number) => {
                Part::Exact(format!("(l.n & 17592186044415) {} ?", operator(*compare)), vec![Value::Integer(*number)])
            }
            Term::Number(field, compare, number) => {
                Part::Exact(format!("l.{} {} ?", column(*field), operator(*compare)), vec![Value::Integer(*number)])
            }
            // Older means earlier.
            Term::Age(compare, age) => {
                let then = (now - *age).as_millis();
                let operator = match compare {
                    Compare::Equal => "=",
                    Compare::Less => ">",
                    Compare::AtMost => ">=",
                    Compare::More => "<",
                    Compare::AtLeast => "<=",
                };
                Part::Exact(format!("l.appended {operator} ?"), vec![Value::Integer(then)])
            }
            Term::Before(time) => Part::Exact("l.appended < ?".to_owned(), vec![Value::Integer(time.as_millis())]),
            Term::Since(time) => Part::Exact("l.appended >= ?".to_owned(), vec![Value::Integer(time.as_millis())]),
            Term::Id(letters) => {
                let numbers: Vec<Value> =
                    letters.iter().map(|at| Value::Integer(schema::number(at.partition, at.offset))).collect();
                Part::Exact(format!("l.n IN ({})", places(numbers.len())), numbers)
            }
        })
    }

    fn of_groups(&self, condition: impl Fn(&GroupRow) -> bool) -> Result<String, IndexError> {
        let rows = self.group_rows()?;
        let numbers: Vec<String> = rows.iter().filter(|(_, row)| condition(row)).map(|(n, _)| n.to_string()).collect();
        Ok(format!("l.grp IN ({})", numbers.join(", ")))
    }

    fn of_classes(&self, by: &Match) -> Result<Part, IndexError> {
        let own = self.of_groups(|group| !group.is_other && by.fits(group.class.as_deref()))?;
        let has_other = self.group_rows()?.iter().any(|(_, group)| group.is_other);
        if !has_other {
            return Ok(Part::exact(&own));
        }
        Ok(beside(&own, &self.of_groups(|group| group.is_other)?, "class", by))
    }

    fn of_topics(&self, by: &Match) -> Result<Part, IndexError> {
        if *by == Match::Absent {
            return Ok(Part::exact("l.topic IS NULL"));
        }
        let names = self.topic_names()?;
        let numbers: Vec<String> = names.iter().filter(|(_, name)| by.fits(Some(name))).map(|(n, _)| n.to_string()).collect();
        let own = format!("l.topic IN ({})", numbers.join(", "));
        let sql = "SELECT EXISTS (SELECT 1 FROM letter WHERE topic = ?1)";
        if !self.db.query_row(sql, [OTHER_TOPIC], |row| row.get::<_, bool>(0)).map_err(self.wrong())? {
            return Ok(Part::exact(&own));
        }
        Ok(beside(&own, &format!("l.topic = {OTHER_TOPIC}"), "origin", by))
    }

    /// Letters with certain tokens, if they are few.
    fn looked_up(&self, query: &str) -> Result<Part, IndexError> {
        let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM words WHERE words MATCH ?1 LIMIT ?2)";
        let count = self
            .db
            .prepare_cached(sql)
            .and_then(|mut asked| asked.query_row(rusqlite::params![query, RARE], |row| row.get::<_, i64>(0)))
            .map_err(self.wrong())?;
        if count >= RARE {
            return Ok(Part::Nothing);
        }
        let given = vec![Value::Text(query.to_owned())];
        Ok(Part::Hint("l.n IN (SELECT rowid FROM words WHERE words MATCH ?)".to_owned(), given))
    }
}

/// The condition for values with a number, and for the others (`other`), whose text is in this column of `detail`.
fn beside(own: &str, other: &str, column: &str, by: &Match) -> Part {
    match by {
        Match::Absent => Part::exact(&format!("({own} OR ({other} AND (SELECT {column} FROM detail WHERE n = l.n) IS NULL))")),
        Match::Any(texts) => {
            let given: Vec<Value> = texts.iter().cloned().map(Value::Text).collect();
            let among = places(given.len());
            Part::Exact(format!("({own} OR ({other} AND (SELECT {column} FROM detail WHERE n = l.n) IN ({among})))"), given)
        }
        Match::Like(_) => Part::Hint(format!("({own} OR {other})"), Vec::new()),
    }
}

/// A term as a condition.
enum Part {
    /// Exact.
    Exact(String, Vec<Value>),
    /// True for more letters.
    Hint(String, Vec<Value>),
    /// Only the letter itself can be checked.
    Nothing,
}

impl Part {
    fn exact(sql: &str) -> Self {
        Self::Exact(sql.to_owned(), Vec::new())
    }
}

fn operator(compare: Compare) -> &'static str {
    match compare {
        Compare::Equal => "=",
        Compare::Less => "<",
        Compare::AtMost => "<=",
        Compare::More => ">",
        Compare::AtLeast => ">=",
    }
}

fn column(field: NumberField) -> &'static str {
    match field {
        NumberField::Attempts => "attempts",
        NumberField::Redrives => "redrives",
        NumberField::Status => "status",
        NumberField::Tier => "tier",
        NumberField::OriginPartition => "origin_partition",
        NumberField::OriginOffset => "origin_offset",
        NumberField::Partition | NumberField::Offset => "n",
    }
}

fn places(count: usize) -> String {
    vec!["?"; count].join(", ")
}
