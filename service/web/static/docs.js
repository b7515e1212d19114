// Starts Swagger UI.

const container = document.getElementById("swagger-ui");
SwaggerUIBundle({ domNode: container, url: container.dataset.url, deepLinking: true, validatorUrl: null });
