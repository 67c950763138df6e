//! The meaning of keys.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::cli::top::picture::Overlay;

/// The action of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Action {
    Quit,
    NextLadder,
    PreviousLadder,
    /// By number, from 0.
    Ladder(usize),
    Help,
    /// Hold or resume, to be confirmed.
    Ask,
    Confirm,
    /// Closes the overlay.
    Close,
}

/// The action of a key while this overlay is open; `None` for a key without meaning.
pub(in crate::cli) fn action(key: KeyEvent, overlay: Overlay) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    if let Overlay::Confirm { .. } = overlay {
        return Some(match key.code {
            KeyCode::Char('y' | 'Y') => Action::Confirm,
            // Any key but `y` is a no.
            _ => Action::Close,
        });
    }
    Some(match key.code {
        KeyCode::Esc | KeyCode::Char('?') if overlay == Overlay::Help => Action::Close,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('?' | 'h') => Action::Help,
        KeyCode::Char('p') => Action::Ask,
        KeyCode::Tab | KeyCode::Right | KeyCode::Down => Action::NextLadder,
        KeyCode::BackTab | KeyCode::Left | KeyCode::Up => Action::PreviousLadder,
        KeyCode::Char(digit @ '1'..='9') => Action::Ladder(usize::try_from(digit.to_digit(10)?).ok()? - 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn only_y_confirms() {
        let asked = Overlay::Confirm { hold: true };
        assert_eq!(action(plain(KeyCode::Char('y')), asked), Some(Action::Confirm));
        for code in [KeyCode::Char('n'), KeyCode::Char('q'), KeyCode::Enter, KeyCode::Esc] {
            assert_eq!(action(plain(code), asked), Some(Action::Close), "{code:?}");
        }
    }

    #[test]
    fn ctrl_c_ends_it_whatever_is_open() {
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for overlay in [Overlay::Nothing, Overlay::Help, Overlay::Confirm { hold: false }] {
            assert_eq!(action(key, overlay), Some(Action::Quit));
        }
        assert_eq!(action(plain(KeyCode::Char('c')), Overlay::Nothing), None);
    }

    #[test]
    fn escape_closes_the_help_and_then_the_picture() {
        assert_eq!(action(plain(KeyCode::Esc), Overlay::Help), Some(Action::Close));
        assert_eq!(action(plain(KeyCode::Esc), Overlay::Nothing), Some(Action::Quit));
        assert_eq!(action(plain(KeyCode::Char('q')), Overlay::Help), Some(Action::Quit));
    }

    #[test]
    fn ladders_are_chosen_by_tab_arrows_and_numbers() {
        let action = |code| action(plain(code), Overlay::Nothing);
        assert_eq!(action(KeyCode::Tab), Some(Action::NextLadder));
        assert_eq!(action(KeyCode::Left), Some(Action::PreviousLadder));
        assert_eq!(action(KeyCode::Char('3')), Some(Action::Ladder(2)));
        assert_eq!(action(KeyCode::Char('0')), None);
    }
}
