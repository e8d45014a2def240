"""Which numbers of a page in a browser carry no name of a stage, or a wrong one."""

# Every text with a digit in no element with a stage's or a file's name, and every name that no stage has. What
# has digits and is no number of a computation: names of layers, linears and steps, code, what can be chosen or typed,
# posts, tokens.
NUMBERS = """
(() => {
  const found = [], seen = document.createTreeWalker(document.getElementById('main'), NodeFilter.SHOW_TEXT);
  for (let node = seen.nextNode(); node; node = seen.nextNode()) {
    const one = node.parentElement;
    const other = 'h3, pre, select, button, textarea, .post, li[lang], bdi, th[scope=row]';
    if (/\\d/.test(node.data) && !one.closest('[data-stage], [data-file], ' + other)) found.push(node.data);
  }
  return [found, [...new Set([...document.querySelectorAll('[data-stage]')].map(one => one.dataset.stage))]];
})()
"""


def numbers_without_a_stage(browser, found) -> list[str]:
    """What of the page shows a number without the name of one of the stages of `found`, or with a wrong name."""
    bare, names = browser.value(NUMBERS)
    return bare + [name for name in names if name not in found.by_name]
