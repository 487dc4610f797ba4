// What the theme leaves out: what scrolls sideways can be reached by the keyboard (after the theme has wrapped
// tables and code), and the dialog of the search has a name.
addEventListener("load", () => setTimeout(() => {
  for (const each of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) each.tabIndex = 0;
  document.querySelector(".md-search").ariaLabel = "Search";
}, 100));
