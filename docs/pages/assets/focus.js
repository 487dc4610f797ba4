// What scrolls sideways can be reached by the keyboard; after the theme has wrapped tables and code.
addEventListener("load", () => setTimeout(() => {
  for (const each of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) each.tabIndex = 0;
}, 100));
