// Shows /openapi.json. In a file of its own, because the page's policy allows no script inside it.

SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger",
  layout: "BaseLayout",
  deepLinking: true,
  syntaxHighlight: false, // of answers that may be long
  validatorUrl: null, // never ask another host
});
