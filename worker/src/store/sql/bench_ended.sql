SELECT count(*) AS ended FROM outcomes
