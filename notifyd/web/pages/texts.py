"""The page's own words, in each language there is. A test keeps the languages in step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_EN: Final = {
    "kind": "Approval request",
    "untitled": "Approval {approval}",
    # the state, as a badge
    "badge.pending": "Waiting for a decision",
    "badge.approved": "Approved",
    "badge.rejected": "Rejected",
    "badge.cancelled": "Cancelled",
    "badge.expired": "Expired",
    "badge.superseded": "Superseded",
    # what that means for the reader
    "state.view_only": "This link shows the request. Only an approver's personal link can decide.",
    "state.not_conferred": "This link no longer entitles you to decide.",
    "state.own_request": "You asked for this approval, so somebody else has to decide.",
    "state.voted": "You have approved this plan. It now waits for others.",
    "state.approved": "Approved on {when} by {who}. There is nothing left to decide.",
    "state.rejected": "Rejected on {when} by {who}. There is nothing left to decide.",
    "state.cancelled": "Cancelled on {when} by {who}. There is nothing left to decide.",
    "state.expired": "This request expired on {when} without enough approvals. It takes a new request.",
    "state.superseded": "The plan has changed since this link was sent, and a newer message has gone out. "
    "Please use the link in that one.",
    # whether the one who asked has heard of the end
    "resume.queued": "The answer is on its way to the system that asked.",
    "resume.delivered": "The system that asked has the answer.",
    "resume.failed": "The system that asked could not be given the answer. Operators can send it again.",
    # why a decision was not recorded
    "alert.form": "Nothing was recorded: the form was open for too long, or did not come from this page. "
    "Please look at the plan again and decide.",
    "alert.choice": "Nothing was recorded: please approve or reject.",
    "alert.comment": "Nothing was recorded: the comment is longer than {limit} characters.",
    "alert.refused": "Nothing was recorded: this link cannot decide.",
    "alert.late": "Nothing was recorded: the request has changed since you opened this page.",
    "alert.already_voted": "Nothing was recorded: you have already decided otherwise.",
    # headings and facts
    "facts": "Request",
    "tenant": "Tenant",
    "project": "Project",
    "run": "Run",
    "approval": "Approval",
    "pack": "Pack",
    "requested_by": "Requested by",
    "requested_at": "Requested on",
    "expires_at": "Decide by",
    "grants": "Needs the grants",
    "plan_hash": "Plan hash",
    "labels": "Labels",
    "steps": "Steps",
    "parameters": "Parameters",
    "policy": "Policy",
    "decisions": "Decisions",
    "progress": "{received} of {required} approvals",
    "approved": "approved",
    "rejected": "rejected",
    # the form
    "decide": "Your decision",
    "decide_as": "It is recorded as {actor}, for exactly this plan, and cannot be changed.",
    "comment": "Comment",
    "comment_hint": "optional; everyone told of this request can read it",
    "approve": "Approve",
    "reject": "Reject",
    # pages without a request
    "gone.title": "This link has expired",
    "gone.text": "Links to an approval work for a limited time only. Please use a newer message.",
    "invalid.title": "This link is not valid",
    "invalid.text": "It may be incomplete, or no longer valid. Please open it from the message once more.",
    "later.title": "Not available right now",
    "later.text": "Please try again in a moment. Nothing was recorded.",
    "failed.title": "That did not work",
    "failed.text": "Please open the link from the message once more.",
    "reference": "Reference",
}

_DE: Final = {
    "kind": "Freigabeanfrage",
    "untitled": "Freigabe {approval}",
    "badge.pending": "Entscheidung steht aus",
    "badge.approved": "Freigegeben",
    "badge.rejected": "Abgelehnt",
    "badge.cancelled": "Zurückgezogen",
    "badge.expired": "Abgelaufen",
    "badge.superseded": "Überholt",
    "state.view_only": "Dieser Link zeigt die Anfrage nur an. Entscheiden kann, wer einen persönlichen Link "
    "erhalten hat.",
    "state.not_conferred": "Dieser Link berechtigt Sie nicht mehr zu einer Entscheidung.",
    "state.own_request": "Sie haben diese Freigabe selbst beantragt, daher muss jemand anderes entscheiden.",
    "state.voted": "Sie haben diesen Plan freigegeben. Jetzt fehlen noch andere.",
    "state.approved": "Am {when} von {who} freigegeben. Es gibt nichts mehr zu entscheiden.",
    "state.rejected": "Am {when} von {who} abgelehnt. Es gibt nichts mehr zu entscheiden.",
    "state.cancelled": "Am {when} von {who} zurückgezogen. Es gibt nichts mehr zu entscheiden.",
    "state.expired": "Diese Anfrage ist am {when} ohne genügend Freigaben abgelaufen. Es braucht eine neue "
    "Anfrage.",
    "state.superseded": "Der Plan hat sich geändert, seit dieser Link verschickt wurde. Bitte verwenden Sie "
    "den Link aus der neueren Nachricht.",
    "resume.queued": "Die Antwort ist unterwegs zum anfragenden System.",
    "resume.delivered": "Das anfragende System hat die Antwort.",
    "resume.failed": "Die Antwort konnte dem anfragenden System nicht zugestellt werden. Der Betrieb kann sie "
    "erneut senden.",
    "alert.form": "Es wurde nichts gespeichert: Das Formular war zu lange offen oder kam nicht von dieser "
    "Seite. Bitte prüfen Sie den Plan noch einmal und entscheiden Sie dann.",
    "alert.choice": "Es wurde nichts gespeichert: Bitte geben Sie frei oder lehnen Sie ab.",
    "alert.comment": "Es wurde nichts gespeichert: Der Kommentar ist länger als {limit} Zeichen.",
    "alert.refused": "Es wurde nichts gespeichert: Mit diesem Link können Sie nicht entscheiden.",
    "alert.late": "Es wurde nichts gespeichert: Die Anfrage hat sich geändert, seit Sie diese Seite geöffnet "
    "haben.",
    "alert.already_voted": "Es wurde nichts gespeichert: Sie haben bereits anders entschieden.",
    "facts": "Anfrage",
    "tenant": "Mandant",
    "project": "Projekt",
    "run": "Lauf",
    "approval": "Freigabe",
    "pack": "Paket",
    "requested_by": "Angefragt von",
    "requested_at": "Angefragt am",
    "expires_at": "Frist",
    "grants": "Nötige Rechte",
    "plan_hash": "Plan-Hash",
    "labels": "Labels",
    "steps": "Schritte",
    "parameters": "Parameter",
    "policy": "Richtlinie",
    "decisions": "Entscheidungen",
    "progress": "{received} von {required} Freigaben",
    "approved": "freigegeben",
    "rejected": "abgelehnt",
    "decide": "Ihre Entscheidung",
    "decide_as": "Sie wird als {actor} gespeichert, gilt für genau diesen Plan und lässt sich nicht ändern.",
    "comment": "Kommentar",
    "comment_hint": "freiwillig; sichtbar für alle, die zu dieser Anfrage benachrichtigt werden",
    "approve": "Freigeben",
    "reject": "Ablehnen",
    "gone.title": "Dieser Link ist abgelaufen",
    "gone.text": "Links zu einer Freigabe gelten nur für begrenzte Zeit. Bitte verwenden Sie eine neuere "
    "Nachricht.",
    "invalid.title": "Dieser Link ist nicht gültig",
    "invalid.text": "Er ist unvollständig oder gilt nicht mehr. Bitte öffnen Sie ihn noch einmal aus der "
    "Nachricht.",
    "later.title": "Im Moment nicht erreichbar",
    "later.text": "Bitte versuchen Sie es gleich noch einmal. Es wurde nichts gespeichert.",
    "failed.title": "Das hat nicht geklappt",
    "failed.text": "Bitte öffnen Sie den Link noch einmal aus der Nachricht.",
    "reference": "Referenz",
}

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {"en": _EN, "de": _DE}
"""By language, then by name. `{…}` is filled in by `str.format`."""
