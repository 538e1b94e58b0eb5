"""Commands that compare graders with people: the check on scored answers, and the sheet to score them on."""
