"""The line of a slot: who lent it to whom. Functions over members; see `concur.gate.agents` for the rule.

A slot that has been lent is with the end of a line: lender -> borrower, who may have lent it on, and so on.
"""

from collections.abc import Iterator

from concur.gate.member import Member


def holder(lender: Member) -> Member:
    """Return who has the slot that the agent lent."""
    while lender.lent_to is not None:
        lender = lender.lent_to
    return lender


def asking_lender(member: Member) -> Member | None:
    """Return the nearest of those who lent the agent its slot that asks for a call."""
    lender = member.borrowed_from
    while lender is not None and not lender.num_asking:
        lender = lender.borrowed_from
    return lender


def close_loan(member: Member) -> Member:
    """Take a lender out of its line, and return who has the slot.

    Whoever borrowed from it borrows from its own lender from now on, if it has one.
    """
    borrower, lender = member.lent_to, member.borrowed_from
    assert borrower is not None
    borrower.borrowed_from = lender
    if lender is not None:
        lender.lent_to = borrower
    member.lent_to = member.borrowed_from = None
    return holder(borrower)


def descendants(member: Member) -> Iterator[Member]:
    """Yield children, their children, and so on."""
    for child in member.children:
        yield child
        yield from descendants(child)
