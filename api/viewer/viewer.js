// Starts Swagger UI, and mends in its elements what the rules of accessibility ask for and it leaves out.

/* global SwaggerUIBundle */

const root = document.getElementById('swagger-ui');

function name(element, words) {
  if (!element.hasAttribute('aria-label')) element.setAttribute('aria-label', words);
}

function mend() {
  // The title is followed by headings of the third level.
  for (const heading of root.querySelectorAll('h3.opblock-tag, .models > h4')) heading.setAttribute('aria-level', '2');
  for (const heading of root.querySelectorAll('.opblock-body h4')) heading.setAttribute('aria-level', '3');
  for (const select of root.querySelectorAll('#servers')) name(select, 'Server');
  for (const select of root.querySelectorAll('select.examples-select-element')) name(select, 'Example');
  for (const row of root.querySelectorAll('tr[data-param-name]')) {
    for (const control of row.querySelectorAll('select, input, textarea')) name(control, row.dataset.paramName);
  }
  for (const table of root.querySelectorAll('.responses-table[role="region"]')) name(table, `Responses, ${table.id}`);
  // The path of an operation is a link inside of the button that opens the operation, and does the same.
  for (const link of root.querySelectorAll('.opblock-summary-control a[href]')) link.removeAttribute('href');
  for (const scroller of root.querySelectorAll('pre, .highlight-code')) {
    if (scroller.scrollWidth > scroller.clientWidth || scroller.scrollHeight > scroller.clientHeight) scroller.tabIndex = 0;
  }
}

new MutationObserver(mend).observe(root, { childList: true, subtree: true });

window.ui = SwaggerUIBundle({
  dom_id: '#swagger-ui',
  url: '/openapi.json',
  deepLinking: true,
  layout: 'BaseLayout',
  // In the order of the description, but what makes a resource before what lists it.
  operationsSorter: (one, other) =>
    one.get('path') === other.get('path') ? (other.get('method') === 'post') - (one.get('method') === 'post') : 0,
  presets: [SwaggerUIBundle.presets.apis],
});
