// Starts the browser of the specification.

const place = document.getElementById("specification");
SwaggerUIBundle({ domNode: place, url: place.dataset.url, deepLinking: true, validatorUrl: null });
